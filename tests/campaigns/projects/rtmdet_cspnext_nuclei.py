# A project as its owner has it before adoption: MMDetection's RTMDet-tiny on
# nuclei, from random weights, for minutes on a CPU.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
data_root = 'data/nuclei'
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=1))
# Half the nuclei are below 16 pixels: images are shown at twice their size.
scale = (512, 512)
crop_size = (256, 256)
grey = dict(img=(114, 114, 114))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.7, 1.4),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=crop_size, pad_val=grey),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='Pad', size_divisor=32, pad_val=grey),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(min_size=16),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    dataset=dict(
        data_root=data_root, metainfo=metainfo, pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + '/annotations/instances_val2017.json'
)
test_evaluator = val_evaluator
max_epochs = 12
# The method's rate is meant for 256 images.
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(
    _delete_=True,
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=max_epochs,
)
default_hooks = dict(
    logger=dict(interval=15), checkpoint=dict(interval=max_epochs)
)
# The base has an average over many steps, and switches mosaics off.
custom_hooks = []
randomness = dict(seed=0)
