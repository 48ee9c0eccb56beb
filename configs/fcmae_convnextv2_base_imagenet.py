# bash tools/dist_train.sh configs/fcmae_convnextv2_base_imagenet.py 8
#
# 800 epochs x 1,281,167 images, batch 4,096 = 8 GPUs x 64 x 8 accumulated:
# 250,228 steps. For 1,600 epochs add
#     --cfg-options train_cfg.max_epochs=1600 param_scheduler.1.end=1600
# Published: ImageNet-1K top-1 of the fine-tuned model,
# 84.6 after 800, 84.9 after 1,600 epochs of this (arXiv 2301.00808).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = './_base_/fcmae.py'
arch = 'base'
model = dict(backbone=dict(arch=arch))
