# bash tools/dist_train.sh configs/mask2former_convnextv2_base-22k_ade20k.py 8
#
# 160,000 iterations x batch 16 (8 GPUs x 2) / 20,210 images = 127 epochs.
# Hardware assumed: 8 GPUs of 32 GB; memory is unmeasured.
#
# Published: nothing; mIoU of Mask2Former with ConvNeXt V2 is unpublished.
#
# Model, data, schedule, learning rate, weight decay, gradient clipping and
# float32 are MMSegmentation's, from
# mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py, with crops
# of 640. The backbone starts from weights fine-tuned on ImageNet-22K and then
# 1K, as Swin there starts from ImageNet-22K.
#
# Unpublished, and taken from this project's UPerNet with V2 base: drop path
# 0.4 (Swin's is 0.3), and stage_wise decay of .9 instead of a tenth of the
# rate for all of the backbone.
_base_ = [
    './_base_/mask2former_seg_640.py',
    './_base_/ade20k_mask2former_640.py',
    './_base_/runtime_seg_mask2former.py',
]
arch = 'base'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_22k.format(arch=arch),
        ),
    ),
    decode_head=dict(in_channels=_base_.channels[arch]),
)
