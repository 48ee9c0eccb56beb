# bash tools/dist_train.sh configs/finetune_convnextv2_pico_imagenet.py 8
#
# 600 epochs x 1,281,167 images, batch 1,024 = 8 GPUs x 128, from FCMAE
# weights.
# Published: top-1 80.3 (arXiv 2301.00808; settings of its appendix A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'pico'
model = dict(
    backbone=dict(
        arch=arch,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    label_smoothing=0.2,
    mixing=dict(mixup=0.3, cutmix=0.3),
)
optim_wrapper = dict(
    # 2e-4 per 256 images.
    optimizer=dict(lr=2e-4 * 1024 / 256, weight_decay=0.3),
    paramwise_cfg=dict(decay_rate=0.9, decay_type='single'),
)
max_epochs = 600
# No warm-up.
param_scheduler = _base_.param_scheduler[1:]
param_scheduler[0].update(
    eta_min_ratio=1e-6 / (2e-4 * 1024 / 256), begin=0, end=max_epochs
)
train_cfg = dict(max_epochs=max_epochs)
