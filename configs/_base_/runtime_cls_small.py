# Training on little data in float32, all layers at one rate, without a moving
# average: a run is shorter than what it remembers.
_base_ = './runtime_cls.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(decay_rate=1.0),
)
custom_hooks = _base_.custom_hooks[:2]
