# Drawn scenes in COCO's layout, from tools/make_demo_data.py.
_base_ = './coco.py'
data_root = 'data/demo/coco'
data_help = 'Draw it with: python tools/make_demo_data.py'
metainfo = dict(
    classes=('disc', 'box', 'triangle', 'star', 'ring', 'cross'),
    palette=[
        (220, 50, 50),
        (150, 90, 40),
        (150, 70, 190),
        (250, 210, 30),
        (255, 130, 190),
        (30, 180, 170),
    ],
)
train_pipeline = _base_.train_pipeline
# Sizes before the flip, not a choice of sizes after it.
train_pipeline[2:4] = [
    dict(
        type='RandomResize',
        scale=(256, 256),
        ratio_range=(0.75, 1.25),
        keep_ratio=True,
    ),
    train_pipeline[2],
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(256, 256))
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
