# Mask R-CNN on atto with narrow heads, for small data on a CPU, from random
# weights.
_base_ = './mask_rcnn.py'
arch = 'atto'
# Group norm where the published recipes need none: without it a pyramid that
# starts from random weights hardly learns in a short schedule.
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
# Two samples a cell, not one a pixel: without compiled operators RoIAlign is
# a good part of a step.
_roi_layer = dict(sampling_ratio=2)
# Images have tens of objects, not hundreds.
_proposals = dict(nms_pre=400, max_per_img=200)
model = dict(
    backbone=dict(arch=arch),
    neck=dict(
        in_channels=_base_.channels[arch], out_channels=64, norm_cfg=norm_cfg
    ),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, roi_layer=_roi_layer),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64, roi_layer=_roi_layer),
        mask_head=dict(in_channels=64, conv_out_channels=64),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=_proposals,
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=_proposals),
)
