# bash tools/dist_train.sh configs/mask2former_convnextv2_base_coco.py 8
#
# 368,750 iterations x batch 16 (8 GPUs x 2) / 117,266 images = 50 epochs.
# Hardware assumed: 8 GPUs of 32 GB; memory is unmeasured.
#
# Published: nothing; AP of Mask2Former with ConvNeXt V2 is unpublished.
#
# Model, data, schedule, learning rate, weight decay, gradient clipping and
# float32 are MMDetection's, from
# mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py (its Swin-S has the same).
#
# The backbone starts from FCMAE, as the V2 detectors (arXiv 2301.00808, table
# 6). Unpublished, and taken from this project's Mask R-CNN with V2 base: drop
# path 0.4 (Swin's is 0.3), and layer_wise decay of .95 instead of a tenth of
# the rate for all of the backbone.
_base_ = [
    './_base_/mask2former_det.py',
    './_base_/coco_mask2former.py',
    './_base_/runtime_det_mask2former.py',
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
    panoptic_head=dict(in_channels=_base_.channels[arch]),
)
