# Training from random weights in float32: all layers learn at one rate.
_base_ = './runtime_det.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(decay_rate=1.0),
    # A first step from random weights can be far too long.
    clip_grad=dict(max_norm=10.0),
)
