# bash tools/dist_train.sh configs/fcmae_convnextv2_tiny_imagenet.py 8
#
# 800 epochs x 1,281,167 images, batch 4,096 = 8 GPUs x 64 x 8 accumulated:
# 250,228 steps. For 1,600 epochs add
#     --cfg-options train_cfg.max_epochs=1600 param_scheduler.1.end=1600
# Published: ImageNet-1K top-1 of the fine-tuned model, 83.0 (arXiv
# 2301.00808; 800 or 1,600 epochs, not said which).
# The authors train without autocast, here it is bfloat16 (--amp off).
# Hardware assumed: 8 GPUs; not run here.
_base_ = './_base_/fcmae.py'
arch = 'tiny'
model = dict(backbone=dict(arch=arch))
