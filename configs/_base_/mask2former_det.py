# Mask2Former for instances: its panoptic head, with things alone.
_base_ = './mask2former.py'
arch = 'tiny'
num_classes = 80
image_size = (1024, 1024)
_classes = dict(num_things_classes=num_classes, num_stuff_classes=0)
model = dict(
    type='Mask2Former',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        pad_mask=True,
        mask_pad_value=0,
        pad_seg=False,
        batch_augments=[
            dict(
                type='BatchFixedSizePad',
                size=image_size,
                img_pad_value=0,
                pad_mask=True,
                mask_pad_value=0,
                pad_seg=False,
            )
        ],
    ),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch=arch),
    panoptic_head=dict(
        type='Mask2FormerHead',
        in_channels=_base_.channels[arch],
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=2.0,
            reduction='mean',
            class_weight=[1.0] * num_classes + [0.1],
        ),
        **_classes,
        **_base_.mask2former_head,
    ),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead',
        loss_panoptic=None,
        init_cfg=None,
        **_classes,
    ),
    train_cfg=_base_.mask2former_train_cfg,
    test_cfg=dict(
        panoptic_on=False,
        semantic_on=False,
        instance_on=True,
        max_per_image=100,
        iou_thr=0.8,
        filter_low_score=True,
    ),
)
