# MMSegmentation's schedule of Mask2Former: 160k iterations, no warm-up.
_base_ = './runtime_seg.py'
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
        decay_rate=0.9,
        decay_type='stage_wise',
        custom_keys=dict(
            query_embed=_embedding,
            query_feat=_embedding,
            level_embed=_embedding,
        ),
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        begin=0,
        end=160000,
        eta_min=0.0,
        by_epoch=False,
    ),
]
