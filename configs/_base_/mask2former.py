# The parts of Mask2Former (arXiv 2112.01527) that both tasks share, as
# MMDetection and MMSegmentation have them: six layers of deformable attention
# over strides 8 to 32, and nine decoder layers of masked attention.
_base_ = './convnext.py'
_width = 256
_position = dict(num_feats=_width // 2, normalize=True)
_relu = dict(type='ReLU', inplace=True)
_attention = dict(
    embed_dims=_width, num_heads=8, dropout=0.0, batch_first=True
)
pixel_decoder = dict(
    type='mmdet.MSDeformAttnPixelDecoder',
    num_outs=3,
    norm_cfg=dict(type='GN', num_groups=32),
    act_cfg=dict(type='ReLU'),
    encoder=dict(
        num_layers=6,
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=3, num_points=4, **_attention),
            ffn_cfg=dict(
                embed_dims=_width,
                feedforward_channels=1024,
                num_fcs=2,
                ffn_drop=0.0,
                act_cfg=_relu,
            ),
        ),
    ),
    positional_encoding=_position,
)
mask2former_head = dict(
    strides=[4, 8, 16, 32],
    feat_channels=_width,
    out_channels=_width,
    num_queries=100,
    num_transformer_feat_level=3,
    pixel_decoder=pixel_decoder,
    enforce_decoder_input_project=False,
    positional_encoding=_position,
    transformer_decoder=dict(
        return_intermediate=True,
        num_layers=9,
        layer_cfg=dict(
            self_attn_cfg=_attention,
            cross_attn_cfg=_attention,
            ffn_cfg=dict(
                embed_dims=_width,
                feedforward_channels=2048,
                num_fcs=2,
                ffn_drop=0.0,
                act_cfg=_relu,
            ),
        ),
        init_cfg=None,
    ),
    loss_mask=dict(
        type='mmdet.CrossEntropyLoss',
        use_sigmoid=True,
        reduction='mean',
        loss_weight=5.0,
    ),
    loss_dice=dict(
        type='mmdet.DiceLoss',
        use_sigmoid=True,
        activate=True,
        reduction='mean',
        naive_dice=True,
        eps=1.0,
        loss_weight=5.0,
    ),
)
# Queries are matched with masks at sampled points.
mask2former_train_cfg = dict(
    num_points=12544,
    oversample_ratio=3.0,
    importance_sample_ratio=0.75,
    assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[
            dict(type='mmdet.ClassificationCost', weight=2.0),
            dict(
                type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True
            ),
            dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
        ],
    ),
    sampler=dict(type='mmdet.MaskPseudoSampler'),
)
