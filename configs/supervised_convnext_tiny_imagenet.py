# bash tools/dist_train.sh configs/supervised_convnext_tiny_imagenet.py 8
#
# 300 epochs x 1,281,167 images, batch 4,096 = 8 GPUs x 128 x 4 accumulated,
# from random weights.
# Published: top-1 82.1 (arXiv 2201.03545, table 1; settings of its appendix
# A.1).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'tiny'
model = dict(
    head_init_scale=1.0,
    backbone=dict(
        arch=arch,
        drop_path_rate=0.1,
        type='mmconvnext.ConvNeXt',
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
optim_wrapper = dict(
    accumulative_counts=4,
    # 2.5e-4 per 256 images.
    optimizer=dict(lr=2.5e-4 * 4096 / 256),
    paramwise_cfg=dict(decay_rate=1.0),
)
auto_scale_lr = dict(base_batch_size=4096)
max_epochs, warmup_epochs = 300, 20
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / 4e-3,
    begin=warmup_epochs,
    end=max_epochs,
)
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(interval=4)
