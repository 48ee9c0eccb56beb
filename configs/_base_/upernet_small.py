# UPerNet on atto with narrow heads, for small data on a CPU.
_base_ = './upernet.py'
arch = 'atto'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(arch=arch),
    decode_head=dict(
        in_channels=_base_.channels[arch], channels=64, norm_cfg=norm_cfg
    ),
    auxiliary_head=dict(
        in_channels=_base_.channels[arch][2], channels=32, norm_cfg=norm_cfg
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
