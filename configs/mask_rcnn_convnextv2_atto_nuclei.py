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
    # Nuclei are about 18 pixels wide: half the usual anchors.
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)
    ),
)
max_epochs = 3
# Too short a run to warm up or decay in.
param_scheduler = []
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2)
