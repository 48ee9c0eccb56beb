# FCMAE pre-training (arXiv 2301.00808, section 3, table 8 and appendix A.1):
# model, images of any folder, the published recipe.
_base_ = './runtime.py'
default_scope = 'mmengine'
arch = 'atto'
mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
model = dict(
    type='mmconvnext.FCMAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=mean, std=std),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch=arch),
    mask_ratio=0.6,
    patch_size=32,
    decoder_depth=1,
    decoder_dim=512,
    norm_pix_loss=True,
    grn_scope='sample',
)
data_root = 'data/imagenet'
data_help = (
    'Any folder of images, in class folders or not; for the recipe '
    'ImageNet-1K (https://image-net.org), its training images in train/.'
)
train_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(
        type='mmconvnext.RandomResizedCrop', scale=224, area_range=(0.2, 1.0)
    ),
    dict(type='mmconvnext.RandomFlip', prob=0.5),
    dict(type='mmconvnext.PackImage'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmconvnext.ImageFolderDataset',
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        pipeline=train_pipeline,
    ),
)

# 8 processes x 64 images x 8 = 4096.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    accumulative_counts=8,
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    # 1.5e-4 per 256 images.
    optimizer=dict(
        type='AdamW',
        lr=1.5e-4 * 4096 / 256,
        betas=(0.9, 0.95),
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(decay_rate=1.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=4096)
max_epochs, warmup_epochs = 800, 40
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6,
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
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)

visualizer = dict(type='Visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
default_hooks = dict(checkpoint=dict(interval=20))
custom_hooks = [
    dict(type='mmconvnext.ExactResumeHook'),
    dict(type='mmconvnext.NonFiniteLossHook'),
    dict(type='mmconvnext.SkippedImagesHook'),
    dict(type='mmconvnext.ReconstructionHook', interval=20),
    dict(type='mmconvnext.LossCurveHook'),
]
