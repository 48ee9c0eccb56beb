# bash tools/dist_train.sh configs/upernet_convnext_base_ade20k.py 8
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Hardware assumed: 8 GPUs of 16 GB; MMSegmentation reports 6.33 GB each in
# float16.
#
# Published: mIoU 49.1 single-scale (--protocol ss_slide), 49.9 multi-scale
# (--protocol ms_whole); arXiv 2201.03545, table 4, and the README of the
# authors' code. They trained in float16, here it is bfloat16.
#
# Released by the authors (sha256 unknown here), to test without training:
#     https://dl.fbaipublicfiles.com/convnext/ade20k/upernet_convnext_base_1k_512x512.pth
#     python tools/convert_checkpoint.py ADDRESS released.pth \
#         --to native --whole
#     python tools/test.py \
#         configs/upernet_convnext_base_ade20k.py released.pth \
#         --protocol ss_slide
_base_ = [
    './_base_/upernet.py',
    './_base_/ade20k.py',
    './_base_/runtime_seg.py',
]
arch = 'base'
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
    decode_head=dict(in_channels=_base_.channels[arch]),
    auxiliary_head=dict(in_channels=_base_.channels[arch][2]),
)
