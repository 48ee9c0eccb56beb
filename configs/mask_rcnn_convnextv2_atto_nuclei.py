# python tools/train.py configs/mask_rcnn_convnextv2_atto_nuclei.py
#
# Few images of many small objects, from random weights, on a CPU: 40 epochs
# of 180 images, crops of 256 at twice the size, at batch 2 = 3,600 steps.
_base_ = [
    './_base_/mask_rcnn_small.py',
    './_base_/nuclei.py',
    './_base_/runtime_det_small.py',
]
model = dict(
    # Nuclei are about 32 pixels wide at this size: half the usual anchors.
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)
    ),
    # Up to 151 objects an image.
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=500), rcnn=dict(max_per_img=200)
    ),
)
max_epochs = 40
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100
    ),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        eta_min=0.0,
        convert_to_iter_based=True,
    ),
]
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=2)
