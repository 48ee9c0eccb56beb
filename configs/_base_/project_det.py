# Objects of any folder, for the configs that tools/new_project.py writes: they
# add where the data is, its classes and the sizes below.
_base_ = './coco.py'
scale = (512, 512)
train_pipeline = _base_.train_pipeline
# Sizes before the flip, not a choice of sizes after it.
train_pipeline[2:4] = [
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.75, 1.25),
        keep_ratio=True,
    ),
    train_pipeline[2],
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(
    persistent_workers=True,
    dataset=dict(filter_cfg=dict(min_size=1), pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
