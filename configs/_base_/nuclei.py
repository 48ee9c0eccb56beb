# 2018 Data Science Bowl stage 1 (BBBC038, CC0) in COCO's layout: microscopy,
# one class, 180 training and 60 validation images.
_base_ = './coco.py'
data_root = 'data/nuclei'
data_help = (
    '2018 Data Science Bowl, stage 1, converted to COCO format: '
    'https://bbbc.broadinstitute.org/BBBC038'
)
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])
train_pipeline = _base_.train_pipeline
# One size before the flip, not a choice of sizes after it.
train_pipeline[2:4] = [
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    train_pipeline[2],
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(320, 320))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(min_size=16),
        pipeline=train_pipeline,
    )
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
