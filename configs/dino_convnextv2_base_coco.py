# bash tools/dist_train.sh configs/dino_convnextv2_base_coco.py 8
#
# 12 epochs of 118,287 images at batch 16 (8 GPUs x 2): 7,393 iterations an
# epoch, 88,716 in all. Hardware assumed: 8 GPUs of 32 GB; memory is
# unmeasured.
#
# Published: nothing; AP of DINO with ConvNeXt V2 is unpublished.
#
# Model, data (images without objects included), schedule, learning rate,
# weight decay, gradient clipping and float32 are MMDetection's, from
# dino-4scale_r50_8xb2-12e_coco.py. No stage is frozen, as with Swin there.
#
# The backbone starts from FCMAE, as the V2 detectors (arXiv 2301.00808, table
# 6). Unpublished, and taken from this project's Mask R-CNN with V2 base: drop
# path 0.4, meant for 36 epochs, and layer_wise decay of .95 instead of a
# tenth of the rate for all of the backbone.
_base_ = [
    './_base_/dino.py',
    './_base_/coco_dino.py',
    './_base_/runtime_det_dino.py',
]
arch = 'base'
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXtV2',
        arch=arch,
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights.v2_fcmae.format(arch=arch),
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch][1:]),
)
