# MMDetection's schedule of DINO: 12 epochs, no warm-up; float32, as there.
_base_ = './runtime_det_boxes.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4
    ),
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise'),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
max_epochs = 12
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[11],
        gamma=0.1,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
