# The 3x schedule of the authors' V1 detectors: theirs warms up over 500
# iterations from a thousandth (Swin's schedule_1x, which they build on).
_base_ = './runtime_det.py'
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500
    ),
    _base_.param_scheduler[1],
]
