# What every detection config shares: hosts' scope, hooks, AdamW with
# layer-wise decay in bfloat16, the 3x schedule.
_base_ = './runtime.py'
default_scope = 'mmdet'
env_cfg = dict(cudnn_benchmark=False)
visualizer = dict(type='DetLocalVisualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

default_hooks = dict(
    checkpoint=dict(interval=1, save_best='coco/segm_mAP'),
    visualization=dict(type='DetVisualizationHook'),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',
    # bfloat16 needs no loss scale; for float16 pass --amp float16.
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise'),
)
max_epochs = 36
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000
    ),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[27, 33],
        gamma=0.1,
    ),
]
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
