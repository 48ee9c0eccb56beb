# bash tools/dist_train.sh configs/upernet_convnext_large-22k_ade20k.py 8
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Hardware assumed: 8 GPUs of 16 GB; MMSegmentation reports 12.08 GB each in
# float16.
#
# Published: mIoU 53.2 single-scale (--protocol ss_slide), 53.7 multi-scale
# (--protocol ms_whole); arXiv 2201.03545, table 4, and the README of the
# authors' code. They trained in float32, here it is bfloat16 (--amp off for
# float32).
#
# Released by the authors (sha256 unknown here), to test without training:
#     https://dl.fbaipublicfiles.com/convnext/ade20k/upernet_convnext_large_22k_640x640.pth
#     python tools/convert_checkpoint.py ADDRESS released.pth \
#         --to native --whole
#     python tools/test.py \
#         configs/upernet_convnext_large-22k_ade20k.py released.pth \
#         --protocol ss_slide
_base_ = [
    './_base_/upernet_640.py',
    './_base_/ade20k_640.py',
    './_base_/runtime_seg.py',
]
arch = 'large'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch=arch,
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v1_22k.format(arch=arch),
        ),
    ),
    decode_head=dict(in_channels=_base_.channels[arch]),
    auxiliary_head=dict(in_channels=_base_.channels[arch][2]),
)
