# bash tools/dist_train.sh configs/deeplabv3plus_convnextv2_tiny_ade20k.py 8
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Hardware assumed: 8 GPUs of 32 GB; memory is unmeasured.
#
# Published: nothing; mIoU of DeepLabV3+ with ConvNeXt V2 is unpublished.
#
# Heads as in MMSegmentation's
# deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py, on maps of stride 8 as
# there: output_stride=8 dilates the last two stages, on the same weights.
# Optimizer, schedule, weights, layer decay and drop path are those of
# upernet_convnextv2_tiny_ade20k.py.
_base_ = [
    './_base_/deeplabv3plus.py',
    './_base_/ade20k.py',
    './_base_/runtime_seg.py',
]
arch = 'tiny'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_1k.format(arch=arch),
        ),
    ),
    decode_head=dict(
        in_channels=_base_.channels[arch][3],
        c1_in_channels=_base_.channels[arch][0],
    ),
    auxiliary_head=dict(in_channels=_base_.channels[arch][2]),
)
