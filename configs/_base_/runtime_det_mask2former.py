# MMDetection's schedule of Mask2Former: 368,750 iterations, which are 50
# epochs, no warm-up.
_base_ = './runtime_det.py'
# Embeddings of queries and levels do not decay; float32, as in the host.
_embedding = dict(lr_mult=1.0, decay_mult=0.0)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        decay_rate=0.95,
        decay_type='layer_wise',
        custom_keys=dict(
            query_embed=_embedding,
            query_feat=_embedding,
            level_embed=_embedding,
        ),
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
max_iters = 368750
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[327778, 355092],
        gamma=0.1,
    ),
]
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
    # After the last whole interval, once at the end.
    dynamic_intervals=[(max_iters // 5000 * 5000 + 1, max_iters)],
)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000, save_last=True),
)
log_processor = dict(by_epoch=False)
