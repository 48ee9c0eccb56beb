# bash tools/dist_train.sh configs/faster_rcnn_convnextv2_tiny_coco.py 8
#
# 36 epochs (3x) of 117,266 images at batch 16 (8 GPUs x 2): 7,330 iterations
# an epoch, 263,880 in all. Hardware assumed: 8 GPUs of 16 GB; memory is
# unmeasured.
#
# Published: nothing; AP of Faster R-CNN with ConvNeXt V2 is unpublished.
#
# For your own boxes, tools/new_project.py --task boxes writes a config with
# this model, and sizes, anchors and schedule for your images.
#
# Model as in MMDetection's faster-rcnn_r50_fpn_ms-3x_coco.py. Data, schedule
# and learning rate are those of the authors' Mask R-CNN at batch 16
# (mask_rcnn_convnext_tiny_coco.py), the length of the warm-up MMDetection's
# for V2. Start from FCMAE, layer decay and drop path are those of
# mask_rcnn_convnextv2_tiny_coco.py.
_base_ = [
    './_base_/faster_rcnn.py',
    './_base_/coco_boxes.py',
    './_base_/runtime_det_boxes.py',
]
arch = 'tiny'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_fcmae.format(arch=arch),
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch]),
)
