# bash tools/dist_train.sh configs/finetune_convnextv2_large_imagenet22k.py 8
#
# 90 epochs of ImageNet-22K, batch 4,096 = 8 GPUs x 64 x 8 accumulated, from
# FCMAE weights.
# Then configs/finetune_convnextv2_large-22k_imagenet.py.
# Published: nothing of this step alone (settings: arXiv 2301.00808, appendix
# A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/imagenet22k.py',
    './_base_/runtime_cls_22k.py',
]
arch = 'large'
num_classes = 21841
model = dict(
    num_classes=num_classes,
    backbone=dict(
        arch=arch,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
