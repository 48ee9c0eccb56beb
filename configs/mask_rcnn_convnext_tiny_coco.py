# bash tools/dist_train.sh configs/mask_rcnn_convnext_tiny_coco.py 8
#
# 36 epochs (3x) of 117,266 images at batch 16 (8 GPUs x 2): 7,330 iterations
# an epoch, 263,880 in all. Hardware assumed: 8 GPUs of 16 GB; MMDetection
# reports 7.3 GB each in float16.
#
# Published: box AP 46.2, mask AP 41.7; arXiv 2201.03545, table 3, and the
# README of the authors' code. They trained in float16, here it is bfloat16.
#
# Released by the authors (sha256 unknown here), to test without training:
#     https://dl.fbaipublicfiles.com/convnext/coco/mask_rcnn_convnext_tiny_1k_3x.pth
#     python tools/convert_checkpoint.py ADDRESS released.pth \
#         --to native --whole
#     python tools/test.py \
#         configs/mask_rcnn_convnext_tiny_coco.py released.pth
_base_ = [
    './_base_/mask_rcnn.py',
    './_base_/coco.py',
    './_base_/runtime_det_v1.py',
]
arch = 'tiny'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch=arch,
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v1_1k.format(arch=arch),
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch]),
)
