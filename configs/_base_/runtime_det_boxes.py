# What runtime_det.py says, for models without masks.
_base_ = './runtime_det.py'
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
