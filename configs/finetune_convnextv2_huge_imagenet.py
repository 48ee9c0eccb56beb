# bash tools/dist_train.sh configs/finetune_convnextv2_huge_imagenet.py 8
#
# 50 epochs x 1,281,167 images, batch 1,024 = 8 GPUs x 16 x 8 accumulated,
# from FCMAE weights.
# Published: top-1 86.3 (arXiv 2301.00808; settings of its appendix A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'huge'
model = dict(
    backbone=dict(
        arch=arch,
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=8,
    # 1.25e-3 per 256 images.
    optimizer=dict(lr=1.25e-3 * 1024 / 256),
    paramwise_cfg=dict(decay_rate=0.75, decay_type='single'),
)
max_epochs, warmup_epochs = 50, 10
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / (1.25e-3 * 1024 / 256),
    begin=warmup_epochs,
    end=max_epochs,
)
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(interval=8)
