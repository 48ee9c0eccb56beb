# UPerNet on atto with narrow heads, for small data on a CPU.
_base_ = './upernet.py'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(arch='atto'),
    decode_head=dict(
        in_channels=[40, 80, 160, 320], channels=64, norm_cfg=norm_cfg
    ),
    auxiliary_head=dict(in_channels=160, channels=32, norm_cfg=norm_cfg),
    test_cfg=dict(_delete_=True, mode='whole'),
)
