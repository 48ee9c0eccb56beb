# A classifier as the authors fine-tune it (arXiv 2301.00808, appendix A.2).
_base_ = './convnext.py'
num_classes = 1000
model = dict(
    type='mmconvnext.ImageClassifier',
    data_preprocessor=dict(
        type='mmconvnext.ErasingDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        erase_prob=0.25,
    ),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch='atto', out_indices=(3,)),
    num_classes=num_classes,
    head_init_scale=0.001,
    label_smoothing=0.1,
)
