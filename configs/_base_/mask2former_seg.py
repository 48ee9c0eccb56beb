# Mask2Former for label maps: a class and a mask for each query.
_base_ = './mask2former.py'
# Its head and the parts of it are MMDetection's.
custom_imports = dict(imports=['mmdet.models'], allow_failed_imports=False)
arch = 'tiny'
num_classes = 150
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
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch=arch),
    decode_head=dict(
        type='Mask2FormerHead',
        in_channels=_base_.channels[arch],
        num_classes=num_classes,
        align_corners=False,
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=2.0,
            reduction='mean',
            class_weight=[1.0] * num_classes + [0.1],
        ),
        train_cfg=_base_.mask2former_train_cfg,
        **_base_.mask2former_head,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
