# Mask2Former for crops of 640 x 640.
_base_ = './mask2former_seg.py'
model = dict(data_preprocessor=dict(size=(640, 640)))
