# ADE20K at 640 x 640, as the recipes with weights from ImageNet-22K.
_base_ = './ade20k.py'
crop_size = (640, 640)
test_scale = (2560, 640)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=test_scale)
train_pipeline[3].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=test_scale)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(
        type='Resize',
        scale=tuple(int(side * ratio) for side in test_scale),
        keep_ratio=True,
    )
    for ratio in _base_.protocols.ms_slide.ratios
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
