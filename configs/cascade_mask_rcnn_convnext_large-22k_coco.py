# bash tools/dist_train.sh \
#     configs/cascade_mask_rcnn_convnext_large-22k_coco.py 8
#
# 36 epochs (3x) of 117,266 images at batch 16 (8 GPUs x 2): 7,330 iterations
# an epoch, 263,880 in all. Hardware assumed: 8 GPUs of 40 GB; memory is
# unmeasured.
#
# Published: box AP 54.8, mask AP 47.6; arXiv 2201.03545, table 3, and the
# README of the authors' code. They trained in float32, here it is bfloat16
# (--amp off for float32).
#
# Released by the authors (sha256 unknown here), to test without training:
#     https://dl.fbaipublicfiles.com/convnext/coco/cascade_mask_rcnn_convnext_large_22k_3x.pth
#     python tools/convert_checkpoint.py ADDRESS released.pth \
#         --to native --whole
#     python tools/test.py \
#         configs/cascade_mask_rcnn_convnext_large-22k_coco.py released.pth
_base_ = [
    './_base_/cascade_mask_rcnn.py',
    './_base_/coco.py',
    './_base_/runtime_det_v1.py',
]
arch = 'large'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch=arch,
        drop_path_rate=0.7,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v1_22k.format(arch=arch),
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.7))
