# python tools/train.py configs/upernet_convnextv2_atto_camvid.py
#
# Small real data, from random weights, on a CPU: 2,000 iterations x batch 4 /
# 367 images = 22 epochs.
_base_ = [
    './_base_/upernet_small.py',
    './_base_/camvid.py',
    './_base_/runtime_seg_small.py',
]
model = dict(
    data_preprocessor=dict(size=(224, 224)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
max_iters = 2000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(
        type='PolyLR',
        power=1.0,
        begin=50,
        end=max_iters,
        eta_min=0.0,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=400)
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=4)
