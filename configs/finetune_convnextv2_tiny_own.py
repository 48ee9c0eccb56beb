# python tools/train.py configs/finetune_convnextv2_tiny_own.py
#
# Your own class folders, data/own/classes/{train,val}/CLASS/*.jpg: 100 epochs
# x however many images there are, batch 256 = 1 GPU x 64 x 4 accumulated.
# Set num_classes. To start from your own pre-training
# (configs/fcmae_convnextv2_tiny_own.py):
#     --cfg-options model.backbone.init_cfg.checkpoint=\
#     work_dirs/fcmae_convnextv2_tiny_own/epoch_400.pth
# Its end is what dense models start from, with the same option. Hardware
# assumed: 1 GPU; not run here.
_base_ = './finetune_convnextv2_tiny_imagenet.py'
data_root = 'data/own/classes'
num_classes = 2
data_help = 'Class folders, train/CLASS/*.jpg and val/CLASS/*.jpg.'
model = dict(num_classes=num_classes)
train_dataloader = dict(batch_size=64, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=4, optimizer=dict(lr=8e-4))
auto_scale_lr = dict(base_batch_size=256)
max_epochs, warmup_epochs = 100, 10
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / 8e-4, begin=warmup_epochs, end=max_epochs
)
train_cfg = dict(max_epochs=max_epochs)
# Without a moving average of 10,000 steps, which own data rarely has.
custom_hooks = _base_.custom_hooks[:2]
