# bash tools/dist_train.sh configs/finetune_convnextv2_tiny_imagenet.py 8
#
# 300 epochs x 1,281,167 images, batch 1,024 = 8 GPUs x 128, from FCMAE
# weights.
# Published: top-1 83.0 (arXiv 2301.00808; settings of its appendix A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'tiny'
model = dict(
    backbone=dict(
        arch=arch,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
optim_wrapper = dict(
    # 8e-4 per 256 images.
    optimizer=dict(lr=8e-4 * 1024 / 256),
    paramwise_cfg=dict(decay_rate=0.9, decay_type='single'),
)
max_epochs, warmup_epochs = 300, 40
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / (8e-4 * 1024 / 256),
    begin=warmup_epochs,
    end=max_epochs,
)
train_cfg = dict(max_epochs=max_epochs)
