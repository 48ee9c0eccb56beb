# bash tools/dist_train.sh configs/upernet_convnext_base-dinov3_ade20k.py 8
#
# The weights are gated: accept the DINOv3 licence
# (https://ai.meta.com/dinov3), then run "hf download
# timm/convnext_base.dinov3_lvd1689m model.safetensors --local-dir
# checkpoints/convnext_base.dinov3_lvd1689m", or set checkpoint to a file of
# your own.
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Hardware assumed: 8 GPUs of 16 GB; memory is unmeasured.
#
# Published: nothing. mIoU, learning rate, layer decay and drop path with
# UPerNet are unpublished for these weights; the values are those of
# upernet_convnext_base (arXiv 2201.03545).
_base_ = [
    './_base_/upernet.py',
    './_base_/ade20k.py',
    './_base_/runtime_seg.py',
]
arch = 'base'
checkpoint = _base_.weights.dinov3.format(arch=arch)
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch=arch,
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=checkpoint,
        ),
    ),
    decode_head=dict(in_channels=_base_.channels[arch]),
    auxiliary_head=dict(in_channels=_base_.channels[arch][2]),
)
