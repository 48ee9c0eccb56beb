# python tools/train.py configs/mask_rcnn_convnextv2_tiny_own.py
#
# Your own data: root and classes are in configs/_base_/own_coco.py, the
# backbone's size below; channels, weights and numbers of classes follow.
#
# 36 epochs of your images at batch 16 (1 GPU), rates dropping after 27 and 33.
# Values are those of mask_rcnn_convnextv2_tiny_coco.py with the V1 recipe's
# multi-scale training; what suits your data is unpublished. Hardware assumed:
# 1 GPU; memory is unmeasured.
_base_ = [
    './_base_/mask_rcnn.py',
    './_base_/own_coco.py',
    './_base_/runtime_det.py',
]
arch = 'tiny'
num_classes = len(_base_.classes)
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
    roi_head=dict(
        bbox_head=dict(num_classes=num_classes),
        mask_head=dict(num_classes=num_classes),
    ),
)
train_dataloader = dict(batch_size=16)
