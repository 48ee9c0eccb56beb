# The same for crops of 640 x 640, with the test images of ade20k_640.py.
_base_ = './ade20k_640.py'
crop_size = (640, 640)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[crop_size[0] * tenths // 10 for tenths in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=2560,
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
