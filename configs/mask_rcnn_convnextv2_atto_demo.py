# python tools/train.py configs/mask_rcnn_convnextv2_atto_demo.py
#
# Drawn scenes, from random weights, minutes on a CPU: 5 epochs of 160 images
# at batch 4.
_base_ = [
    './_base_/mask_rcnn_small.py',
    './_base_/demo_det.py',
    './_base_/runtime_det_small.py',
]
model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=6), mask_head=dict(num_classes=6)
    ),
    # A handful of objects: a quarter of the usual samples does.
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
)
max_epochs = 5
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=20),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[4],
        gamma=0.1,
    ),
]
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=20))
auto_scale_lr = dict(base_batch_size=4)
