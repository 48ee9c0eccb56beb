# What every classification config shares: AdamW with layer-wise decay in
# bfloat16, a cosine schedule, the moving average of the weights.
_base_ = './runtime.py'
default_scope = 'mmengine'
visualizer = dict(type='Visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
default_hooks = dict(
    checkpoint=dict(interval=1, save_best='accuracy/top1', rule='greater')
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    # bfloat16 needs no loss scale; for float16 pass --amp float16.
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    accumulative_counts=1,
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    # 8e-4 per 256 images.
    optimizer=dict(
        type='AdamW',
        lr=8e-4 * 1024 / 256,
        betas=(0.9, 0.999),
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(decay_rate=0.9, decay_type='single'),
)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
max_epochs, warmup_epochs = 300, 40
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
        # The authors' smallest rate is 1e-6.
        eta_min_ratio=1e-6 / 3.2e-3,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# Decay 0.9999 after each step of the optimiser: interval is its
# accumulative_counts. What is tested and saved as the weights is the average.
ema = dict(type='EMAHook', momentum=1e-4, interval=1, priority='ABOVE_NORMAL')
custom_hooks = [
    dict(type='mmconvnext.ExactResumeHook'),
    dict(type='mmconvnext.NonFiniteLossHook'),
    ema,
]
