# python tools/train.py configs/mask_rcnn_convnextv2_atto_nuclei.py
#
# Small real data, from random weights, on a CPU: 3 epochs of 180 images at
# batch 2 and 320 pixels.
_base_ = [
    './_base_/mask_rcnn_small.py',
    './_base_/nuclei.py',
    './_base_/runtime_det_small.py',
]
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1))
)
max_epochs = 3
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[2],
        gamma=0.1,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2)
