# Your own data in ADE20K's layout: edit data_root and classes, here and
# nowhere else; the heads take their number of classes from here.
#
#     data/own/images/{training,validation}/*.jpg
#     data/own/annotations/{training,validation}/*.png
#
# Label maps hold 0 where nothing is labelled and 1 + the index of the class
# elsewhere.
_base_ = './ade20k.py'
data_root = 'data/own'
classes = ('first', 'second')
data_help = 'Your own data: data_root in configs/_base_/own_ade20k.py'
metainfo = dict(classes=classes)
_dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=metainfo,
    reduce_zero_label=True,
)
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
