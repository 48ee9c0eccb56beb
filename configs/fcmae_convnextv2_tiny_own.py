# python tools/train.py configs/fcmae_convnextv2_tiny_own.py
#
# Your own images, no labels: 400 epochs x however many there are, batch 256 =
# 1 GPU x 64 x 4 accumulated. Then the same arch with labels, see
# configs/upernet_convnextv2_tiny_own.py and mask_rcnn_convnextv2_tiny_own.py:
#     --cfg-options model.backbone.init_cfg.checkpoint=\
#     work_dirs/fcmae_convnextv2_tiny_own/epoch_400.pth
# Images of a COCO layout: train_dataloader.dataset.data_prefix.img_path=\
#     train2017. Hardware assumed: 1 GPU; not run here.
_base_ = './_base_/fcmae.py'
arch = 'tiny'
model = dict(backbone=dict(arch=arch))
data_root = 'data/own'
data_help = 'Any images, at any depth below images/training/.'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, data_prefix=dict(img_path='images/training')
    )
)
optim_wrapper = dict(accumulative_counts=4, optimizer=dict(lr=1.5e-4))
auto_scale_lr = dict(base_batch_size=256)
max_epochs, warmup_epochs = 400, 20
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(begin=warmup_epochs, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
