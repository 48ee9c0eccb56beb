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
# A side of a third to two thirds of the image: the size at which the detector
# sees a nucleus.
train_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(
        type='mmconvnext.RandomResizedCrop', scale=224, area_range=(0.1, 0.5)
    ),
    dict(type='mmconvnext.RandomFlip', prob=0.5),
    dict(type='mmconvnext.PackImage'),
]
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='train2017'),
        pipeline=train_pipeline,
    )
)
max_epochs = 200
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        begin=10,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=100))
