# Mask R-CNN on atto with narrow heads, for small data on a CPU.
_base_ = './mask_rcnn.py'
arch = 'atto'
model = dict(
    backbone=dict(arch=arch),
    neck=dict(in_channels=_base_.channels[arch], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64),
    ),
)
