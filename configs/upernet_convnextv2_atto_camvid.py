# python tools/train.py configs/upernet_convnextv2_atto_camvid.py
#
# Small real data, from random weights or FCMAE, on a CPU: 2,600 iterations x
# batch 4 / 367 images = 28 epochs.
_base_ = [
    './_base_/upernet_small.py',
    './_base_/camvid.py',
    './_base_/runtime_seg_small.py',
]
# Square roots of the weights that balance classes by median frequency (Eigen
# and Fergus, arXiv 1411.4734; SegNet has them on CamVid), from the training
# pixels: bicyclists are 0.3 % of them, roads 33 %.
class_weight = [
    0.53,
    0.45,
    2.19,
    0.39,
    1.0,
    0.65,
    1.96,
    1.4,
    0.89,
    2.52,
    2.98,
]
model = dict(
    data_preprocessor=dict(size=(224, 224)),
    decode_head=dict(
        num_classes=11,
        loss_decode=dict(
            _delete_=True,
            type='mmconvnext.WeightedCrossEntropyLoss',
            class_weight=class_weight,
        ),
    ),
    auxiliary_head=dict(num_classes=11),
)
# A short schedule has no time for much variety.
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(ratio_range=(0.75, 1.5))
train_pipeline[5].update(hue_delta=5)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
max_iters = 2600
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
train_cfg = dict(max_iters=max_iters, val_interval=1300)
default_hooks = dict(checkpoint=dict(interval=1300))
auto_scale_lr = dict(base_batch_size=4)
