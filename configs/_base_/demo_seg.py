# Drawn scenes in ADE20K's layout, from tools/make_demo_data.py.
_base_ = './camvid.py'
data_root = 'data/demo/ade20k'
data_help = 'Draw it with: python tools/make_demo_data.py'
metainfo = dict(
    classes=(
        'grass',
        'sand',
        'water',
        'disc',
        'box',
        'triangle',
        'star',
        'ring',
        'cross',
    ),
    palette=[
        (88, 160, 60),
        (226, 200, 140),
        (70, 140, 200),
        (220, 50, 50),
        (150, 90, 40),
        (150, 70, 190),
        (250, 210, 30),
        (255, 130, 190),
        (30, 180, 170),
    ],
)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(256, 192), ratio_range=(0.75, 1.5))
train_pipeline[3].update(crop_size=(160, 160))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, pipeline=train_pipeline
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
