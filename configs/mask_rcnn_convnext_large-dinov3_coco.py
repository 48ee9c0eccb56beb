# bash tools/dist_train.sh configs/mask_rcnn_convnext_large-dinov3_coco.py 8
#
# The weights are gated: accept the DINOv3 licence
# (https://ai.meta.com/dinov3), then run "hf download
# timm/convnext_large.dinov3_lvd1689m model.safetensors --local-dir
# checkpoints/convnext_large.dinov3_lvd1689m", or set checkpoint to a file of
# your own.
#
# 36 epochs (3x) of 117,266 images at batch 16 (8 GPUs x 2): 7,330 iterations
# an epoch, 263,880 in all. Hardware assumed: 8 GPUs of 80 GB; memory is
# unmeasured.
#
# Published: nothing. AP, learning rate, layer decay and drop path are
# unpublished for these weights; the values are those of Mask R-CNN tiny in
# V1, drop path from Cascade large (arXiv 2201.03545).
_base_ = [
    './_base_/mask_rcnn.py',
    './_base_/coco.py',
    './_base_/runtime_det_v1.py',
]
arch = 'large'
checkpoint = _base_.weights.dinov3.format(arch=arch)
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch=arch,
        drop_path_rate=0.7,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=checkpoint,
        ),
    ),
    neck=dict(in_channels=_base_.channels[arch]),
)
