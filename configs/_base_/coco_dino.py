# COCO 2017 boxes as MMDetection's DINO reads them: images without objects
# stay, and before a crop only the shorter side limits the size.
_base_ = './coco_boxes.py'
train_pipeline = _base_.train_pipeline
train_pipeline[3].transforms[1][0].update(
    scales=[(400, 4200), (500, 4200), (600, 4200)]
)
train_dataloader = dict(
    dataset=dict(
        pipeline=train_pipeline, filter_cfg=dict(filter_empty_gt=False)
    )
)
