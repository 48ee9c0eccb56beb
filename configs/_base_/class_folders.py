# Images in class folders, as ImageNet's: train/CLASS/*.JPEG, val/CLASS/*.JPEG.
data_root = 'data/imagenet'
data_help = (
    'Class folders, train/CLASS/*.jpg and val/CLASS/*.jpg; for the recipes '
    'ImageNet-1K (https://image-net.org).'
)
train_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(
        type='mmconvnext.RandomResizedCrop', scale=224, area_range=(0.08, 1.0)
    ),
    dict(type='mmconvnext.RandomFlip', prob=0.5),
    dict(type='mmconvnext.RandAugment'),
    dict(type='mmconvnext.PackClass'),
]
test_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.ResizedCenterCrop', scale=224, crop_ratio=0.875),
    dict(type='mmconvnext.PackClass'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmconvnext.ClassFolderDataset',
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmconvnext.ClassFolderDataset',
        data_root=data_root,
        data_prefix=dict(img_path='val'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmconvnext.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
