# torchrun --nproc_per_node 8 tools/train.py \
#     configs/mask_rcnn_convnext_tiny_coco.py --launcher pytorch
#
# 36 epochs (3x) of 117,266 images at batch 16 (8 GPUs x 2).
# Published: box AP 46.2, mask AP 41.7; arXiv 2201.03545, table 3.
_base_ = [
    './_base_/mask_rcnn.py',
    './_base_/coco.py',
    './_base_/runtime_det.py',
]
model = dict(
    backbone=dict(
        type='mmconvnext.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/convnext/'
            'convnext_tiny_1k_224_ema.pth',
        ),
    ),
)
