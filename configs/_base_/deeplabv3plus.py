# DeepLabV3+ (arXiv 1802.02611) on maps of stride 8, with an auxiliary FCN head
# on stage 3: MMSegmentation's, for ResNet-50-D8.
_base_ = './convnext.py'
arch = 'tiny'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        # The last two stages are dilated instead of strided.
        output_stride=8,
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_channels=_base_.channels[arch][3],
        in_index=3,
        channels=512,
        dilations=(1, 12, 24, 36),
        c1_in_channels=_base_.channels[arch][0],
        c1_channels=48,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0
        ),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=_base_.channels[arch][2],
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
