# python tools/train.py configs/finetune_convnextv2_atto_signs.py
#
# Small real data, on a CPU: 15 epochs x 1,653 images, batch 32. From random
# weights; to start from configs/fcmae_convnextv2_atto_signs.py:
#     --cfg-options model.backbone.init_cfg.type=Pretrained \
#     model.backbone.init_cfg.checkpoint=work_dirs/fcmae_.../epoch_200.pth
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders.py',
    './_base_/runtime_cls_small.py',
]
arch = 'atto'
data_root = 'data/signs'
data_help = (
    'Sign Language Digits (A. Mavi, arXiv 2011.08927) in class folders, '
    'train/0/*.jpg to val/9/*.jpg'
)
model = dict(
    num_classes=10,
    head_init_scale=1.0,
    data_preprocessor=dict(erase_prob=0.0),
    backbone=dict(arch=arch),
)
# Photographs of 100 x 100 pixels; a mirrored hand is another hand's sign.
train_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(
        type='mmconvnext.RandomResizedCrop', scale=96, area_range=(0.35, 1.0)
    ),
    dict(type='mmconvnext.RandomFlip', prob=0.5),
    dict(type='mmconvnext.ColorJitter'),
    dict(type='mmconvnext.PackClass'),
]
test_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.ResizedCenterCrop', scale=96, crop_ratio=0.96),
    dict(type='mmconvnext.PackClass'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=32)
max_epochs, warmup_epochs = 15, 2
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-3, begin=warmup_epochs, end=max_epochs
)
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=10))
