# torchrun --nproc_per_node 8 tools/train.py \
#     configs/upernet_convnextv2_base_ade20k.py --launcher pytorch
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Published: mIoU 52.1 multi-scale; arXiv 2301.00808, table 7. Single-scale:
# unpublished.
#
# The backbone starts from weights fine-tuned on ImageNet-1K, as in the paper
# (A.4), not from the raw FCMAE ones. The paper swept layer decay {.8, .9},
# learning rate {1, 2, 3}e-4 and drop path {.1, .2, .3, .4}; which it chose is
# unpublished. Here stand the values of V1 base, which lie inside the sweep.
_base_ = [
    './_base_/upernet.py',
    './_base_/ade20k.py',
    './_base_/runtime_seg.py',
]
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/convnext/convnextv2/'
            'im1k/convnextv2_base_1k_224_ema.pt',
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
