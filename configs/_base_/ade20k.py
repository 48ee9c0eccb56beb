# ADE20K, 150 classes: 20,210 training and 2,000 validation images.
data_root = 'data/ade20k'
data_help = (
    'ADE20K scene parsing (the 2016 challenge: folder ADEChallengeData2016): '
    'http://sceneparsing.csail.mit.edu/'
)
crop_size = (512, 512)
test_scale = (2048, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(
        type='RandomResize',
        scale=test_scale,
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    # after Resize: labels are compared at their own size
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# Test protocols by name, for tools/test.py --protocol; ratios are those of
# test_scale. The V1 paper reports ss_slide and ms_whole, MMSegmentation's
# re-runs report ss_slide and ms_slide. The V2 paper has ratios of its own; its
# mode is unpublished, and whole is V1's.
_v1 = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_v2 = (0.75, 0.875, 1.0, 1.125, 1.25)
protocols = dict(
    ss_slide=dict(mode='slide', ratios=(1.0,), flip=False),
    ms_whole=dict(mode='whole', ratios=_v1, flip=True),
    ms_slide=dict(mode='slide', ratios=_v1, flip=True),
    ms_whole_v2=dict(mode='whole', ratios=_v2, flip=True),
    ms_slide_v2=dict(mode='slide', ratios=_v2, flip=True),
)
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=tuple(int(side * ratio) for side in test_scale),
                    keep_ratio=True,
                )
                for ratio in _v1
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
