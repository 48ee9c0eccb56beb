# bash tools/dist_train.sh configs/finetune_convnextv2_huge_imagenet22k.py 8
#
# 90 epochs of ImageNet-22K, batch 4,096 = 8 GPUs x 16 x 32 accumulated, from
# FCMAE weights, at 384 pixels.
# Then configs/finetune_convnextv2_huge-22k_imagenet.py.
# Published: nothing of this step alone (settings: arXiv 2301.00808, appendix
# A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders_384.py',
    './_base_/runtime_cls_22k.py',
]
arch = 'huge'
num_classes = 21841
model = dict(
    num_classes=num_classes,
    backbone=dict(
        arch=arch,
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights['v2_fcmae'].format(arch=arch),
        ),
    ),
    mixing=dict(mixup=0.8, cutmix=1.0),
)
data_root = 'data/imagenet22k'
_data = dict(dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=16, **_data)
val_dataloader = dict(**_data)
test_dataloader = val_dataloader
optim_wrapper = dict(
    accumulative_counts=32, paramwise_cfg=dict(decay_rate=0.8)
)
