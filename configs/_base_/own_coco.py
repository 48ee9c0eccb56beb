# Your own data in COCO's layout: edit data_root and classes, here and nowhere
# else; the heads take their number of classes from here.
#
#     data/own/{train2017,val2017}/*.jpg
#     data/own/annotations/instances_{train,val}2017.json
#
# Classes are in the order of their ids; categories of other names are left
# out.
_base_ = './coco.py'
data_root = 'data/own'
classes = ('first', 'second')
data_help = 'Your own data: data_root in configs/_base_/own_coco.py'
metainfo = dict(classes=classes)
_dataset = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + '/annotations/instances_val2017.json'
)
test_evaluator = val_evaluator
