# bash tools/dist_train.sh configs/finetune_convnextv2_large_imagenet22k.py 8
#
# 90 epochs of ImageNet-22K, batch 4,096 = 8 GPUs x 64 x 8 accumulated, from
# FCMAE weights.
# Then configs/finetune_convnextv2_large-22k_imagenet.py.
# Published: nothing of this step alone (settings: arXiv 2301.00808, appendix
# A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls.py',
]
arch = 'large'
num_classes = 21841
model = dict(
    num_classes=num_classes,
    backbone=dict(
        arch=arch,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
data_root = 'data/imagenet22k'
_data = dict(dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=64, **_data)
val_dataloader = dict(**_data)
test_dataloader = val_dataloader
optim_wrapper = dict(
    accumulative_counts=8,
    # 2.5e-4 per 256 images.
    optimizer=dict(lr=2.5e-4 * 4096 / 256),
    paramwise_cfg=dict(decay_rate=0.8, decay_type='single'),
)
auto_scale_lr = dict(base_batch_size=4096)
max_epochs, warmup_epochs = 90, 5
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / (2.5e-4 * 4096 / 256),
    begin=warmup_epochs,
    end=max_epochs,
)
train_cfg = dict(max_epochs=max_epochs)
# No moving average.
custom_hooks = _base_.custom_hooks[:2]
