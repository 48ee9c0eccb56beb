# bash tools/dist_train.sh configs/cascade_mask_rcnn_convnextv2_base_coco.py 8
#
# 36 epochs (3x) of 117,266 images at batch 32 (8 GPUs x 4): 3,665 iterations
# an epoch, 131,940 in all. Hardware assumed: 8 GPUs of 80 GB; memory is
# unmeasured.
#
# Published: nothing; AP and all settings are unpublished (arXiv 2301.00808
# has Mask R-CNN only). Data, schedule, decay .95 and drop path .4 are those
# of mask_rcnn_convnextv2_base_coco.py, the heads those of V1 (arXiv
# 2201.03545).
_base_ = [
    './_base_/cascade_mask_rcnn.py',
    './_base_/coco_lsj.py',
    './_base_/runtime_det.py',
]
arch = 'base'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_fcmae.format(arch=arch),
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch]),
    test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))),
)
auto_scale_lr = dict(base_batch_size=32)
