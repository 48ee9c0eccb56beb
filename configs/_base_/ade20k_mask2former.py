# ADE20K as Mask2Former reads it: the shorter side between half and twice the
# crop. Test images are those of ade20k.py.
_base_ = './ade20k.py'
crop_size = (512, 512)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[crop_size[0] * tenths // 10 for tenths in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=2048,
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
