# python tools/train.py configs/fcmae_convnextv2_atto_nuclei.py
#
# Few images without labels, on a CPU: 200 epochs x 180 images, batch 8.
# Then configs/mask_rcnn_convnextv2_atto_nuclei.py with
#     --cfg-options model.backbone.init_cfg.type=Pretrained \
#     model.backbone.init_cfg.checkpoint=work_dirs/fcmae_.../epoch_200.pth
_base_ = './fcmae_convnextv2_atto_camvid.py'
data_root = 'data/nuclei'
data_help = (
    '2018 Data Science Bowl, stage 1, its training images in train2017/: '
    'https://bbbc.broadinstitute.org/BBBC038'
)
# Crops of a third to seven tenths of a side: nuclei are about as large as the
# detector sees them.
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(area_range=(0.1, 0.5))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='train2017'),
        pipeline=train_pipeline,
    )
)
max_epochs, warmup_epochs = 200, 10
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(begin=warmup_epochs, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=100))
