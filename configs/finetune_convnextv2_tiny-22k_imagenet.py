# bash tools/dist_train.sh configs/finetune_convnextv2_tiny-22k_imagenet.py 8
#
# 90 epochs x 1,281,167 images at 384 pixels, batch 512 = 8 GPUs x 32 x 2
# accumulated,
# from the end of configs/finetune_convnextv2_tiny_imagenet22k.py: the authors
# released no weights of that step alone.
# Published: top-1 85.1 (arXiv 2301.00808; settings of its appendix A.2).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = [
    './_base_/classifier.py',
    './_base_/class_folders_384.py',
    './_base_/runtime_cls_22k_1k.py',
]
arch = 'tiny'
model = dict(
    # All but the head, whose classes differ.
    init_cfg=dict(
        type='Pretrained',
        checkpoint=(
            'work_dirs/finetune_convnextv2_tiny_imagenet22k/epoch_90.pth'
        ),
        head=False,
    ),
    backbone=dict(
        arch=arch,
        drop_path_rate=0.1,
    ),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
max_epochs = 90
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
