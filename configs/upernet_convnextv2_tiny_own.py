# python tools/train.py configs/upernet_convnextv2_tiny_own.py
#
# Your own data: root and classes are in configs/_base_/own_ade20k.py, the
# backbone's size below; channels, weights and numbers of classes follow.
#
# 40,000 iterations x batch 16 (1 GPU): epochs = 640,000 / your images. Rates
# are those of upernet_convnextv2_tiny_ade20k.py; what suits your data is
# unpublished. Hardware assumed: 1 GPU; memory is unmeasured.
_base_ = [
    './_base_/upernet.py',
    './_base_/own_ade20k.py',
    './_base_/runtime_seg.py',
]
arch = 'tiny'
max_iters = 40000
num_classes = len(_base_.classes)
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_1k.format(arch=arch),
        ),
    ),
    decode_head=dict(
        in_channels=_base_.channels[arch], num_classes=num_classes
    ),
    auxiliary_head=dict(
        in_channels=_base_.channels[arch][2], num_classes=num_classes
    ),
)
train_dataloader = dict(batch_size=16)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500
    ),
    dict(
        type='PolyLR',
        power=1.0,
        begin=1500,
        end=max_iters,
        eta_min=0.0,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
