# torchrun --nproc_per_node 8 tools/train.py \
#     configs/upernet_convnext_tiny_ade20k.py --launcher pytorch
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Published: mIoU 46.0 single-scale (slide), 46.7 multi-scale (whole);
# arXiv 2201.03545, table 4, and the README of the authors' code.
_base_ = [
    './_base_/upernet.py',
    './_base_/ade20k.py',
    './_base_/runtime_seg.py',
]
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/convnext/'
            'convnext_tiny_1k_224_ema.pth',
        ),
    ),
)
