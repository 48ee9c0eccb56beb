# python tools/train.py configs/upernet_convnextv2_atto_demo.py
#
# Drawn scenes, from random weights, minutes on a CPU:
# 300 iterations x batch 8 / 160 images = 15 epochs.
_base_ = [
    './_base_/upernet_small.py',
    './_base_/demo_seg.py',
    './_base_/runtime_seg_small.py',
]
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(num_classes=9),
    auxiliary_head=dict(num_classes=9),
)
max_iters = 300
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=30),
    dict(
        type='PolyLR',
        power=1.0,
        begin=30,
        end=max_iters,
        eta_min=0.0,
        by_epoch=False,
    ),
]
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=max_iters, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=20))
auto_scale_lr = dict(base_batch_size=8)
