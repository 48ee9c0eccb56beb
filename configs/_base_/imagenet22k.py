# ImageNet-22K in class folders.
_base_ = './class_folders.py'
data_root = 'data/imagenet22k'
_data = dict(dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=64, **_data)
val_dataloader = dict(**_data)
test_dataloader = val_dataloader
