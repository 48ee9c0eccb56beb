# python tools/train.py configs/fcmae_convnextv2_atto_signs.py
#
# Small real data without labels, on a CPU: 200 epochs x 1,653 images, batch
# 64. Then configs/finetune_convnextv2_atto_signs.py with
#     --cfg-options model.backbone.init_cfg.type=Pretrained \
#     model.backbone.init_cfg.checkpoint=work_dirs/fcmae_.../epoch_200.pth
_base_ = './fcmae_convnextv2_atto_camvid.py'
data_root = 'data/signs'
data_help = (
    'Sign Language Digits (A. Mavi, arXiv 2011.08927), its training images '
    'in train/, in class folders or not'
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=128, area_range=(0.35, 1.0))
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        pipeline=train_pipeline,
    ),
)
auto_scale_lr = dict(base_batch_size=64)
max_epochs = 200
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
