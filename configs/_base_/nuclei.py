# 2018 Data Science Bowl stage 1 (BBBC038, CC0) in COCO's layout: microscopy,
# one class, 180 training and 60 validation images, mostly of 256 x 256.
_base_ = './coco.py'
data_root = 'data/nuclei'
data_help = (
    '2018 Data Science Bowl, stage 1, converted to COCO format: '
    'https://bbbc.broadinstitute.org/BBBC038'
)
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])
# Half the nuclei are below 16 pixels: images are shown at twice their size.
scale = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.7, 1.4),
        keep_ratio=True,
    ),
    # A quarter of an image has objects enough, at a quarter of the cost.
    dict(
        type='RandomCrop',
        crop_size=(256, 256),
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True),
    # No side of a microscope's image is up.
    dict(
        type='RandomFlip',
        prob=0.75,
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(
    persistent_workers=True,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(min_size=16),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + '/annotations/instances_val2017.json'
)
test_evaluator = val_evaluator
