# bash tools/dist_train.sh configs/probe_convnextv2_tiny_imagenet.py 8
#
# Linear probe: how well the features of a pre-training separate classes. The
# backbone is frozen; last norm and head learn for 90 epochs x 1,281,167
# images, batch 1,024 = 8 GPUs x 128. Any checkpoint, any class folders:
#     --data-root data/mine --cfg-options model.num_classes=10 \
#     model.backbone.init_cfg.checkpoint=FILE model.backbone.arch=atto
# Published: nothing; the papers fine-tune. Augmentation is that of MAE's probe
# (arXiv 2111.06377, appendix A.1), and so are standardised features; Adam in
# place of its LARS is ours.
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'tiny'
model = dict(
    data_preprocessor=dict(erase_prob=0.0),
    backbone=dict(
        arch=arch,
        frozen_stages=4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    label_smoothing=0.0,
)
# Crops and flips, no RandAugment.
train_pipeline = [
    step for step in _base_.train_pipeline if 'RandAugment' not in step['type']
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.0),
    paramwise_cfg=dict(decay_rate=1.0),
)
max_epochs = 90
# No warm-up: one layer learns.
param_scheduler = _base_.param_scheduler[1:]
param_scheduler[0].update(eta_min_ratio=0.0, begin=0, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
# No moving average.
custom_hooks = _base_.custom_hooks[:2]
default_hooks = dict(standardize=dict(type='mmconvnext.StandardizeHook'))
