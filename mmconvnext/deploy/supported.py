"""What can be exported: tables by name, and one check before any work."""

from __future__ import annotations

from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ..configs import bare_type
from .suppression import options_of

# Type of the whole model to its task.
SEGMENTORS = ('EncoderDecoder', 'CascadeEncoderDecoder')
DETECTORS = (
    'TwoStageDetector',
    'FasterRCNN',
    'MaskRCNN',
    'CascadeRCNN',
)
TASKS = {
    **dict.fromkeys(SEGMENTORS, 'segmentation'),
    **dict.fromkeys(DETECTORS, 'detection'),
    'ImageClassifier': 'classification',
}

# Head of a segmentor: None where the file was compared with PyTorch at sizes
# that were not traced, else why it is refused. Heads of other projects are
# in no row: they are tried, and always compared.
HEADS: Dict[str, Optional[str]] = {
    **dict.fromkeys(
        (
            'ANNHead',
            'APCHead',
            'ASPPHead',
            'DAHead',
            'DNLHead',
            'DepthwiseSeparableASPPHead',
            'DepthwiseSeparableFCNHead',
            'EMAHead',
            'EncHead',
            'FCNHead',
            'FPNHead',
            'GCHead',
            'NLHead',
            'OCRHead',
            'PSPHead',
            'SETRUPHead',
            'STDCHead',
            'SegformerHead',
            'UPerHead',
        )
    ),
    'CCHead': 'it needs aten::diag, which no exporter writes',
    'DMHead': 'it convolves with kernels that it computes from the image',
    'ISAHead': 'its blocks are cut by sizes that Python rounds',
    'LightHamHead': 'it starts from random numbers',
    'PSAHead': 'its operator psamask is not one of ONNX',
    **dict.fromkeys(
        (
            'KernelUpdateHead',
            'IterativeDecodeHead',
            'Mask2FormerHead',
            'MaskFormerHead',
            'SideAdapterCLIPHead',
            'SegmenterMaskTransformerHead',
        ),
        'its queries are not written for export',
    ),
    'PointHead': 'it refines the points that are uncertain in an image',
}

# Part of a detector to the types of it that are written for export.
PARTS = {
    'rpn_head': ('RPNHead',),
    'roi_head': ('StandardRoIHead', 'CascadeRoIHead'),
    'bbox_head': (
        'BBoxHead',
        'ConvFCBBoxHead',
        'Shared2FCBBoxHead',
        'Shared4Conv1FCBBoxHead',
    ),
    'mask_head': ('FCNMaskHead',),
    'bbox_coder': ('DeltaXYWHBBoxCoder',),
    'bbox_roi_extractor': ('SingleRoIExtractor',),
    'mask_roi_extractor': ('SingleRoIExtractor',),
    'roi_layer': ('RoIAlign',),
}
# Steps of a test pipeline that a runner repeats, or need not, by task.
OF_HOSTS = ('LoadImageFromFile', 'Resize', 'LoadAnnotations')
STEPS = {
    'segmentation': (*OF_HOSTS, 'PackSegInputs'),
    'detection': (*OF_HOSTS, 'PackDetInputs'),
    'classification': ('LoadImage', 'ResizedCenterCrop', 'PackClass'),
}
PREPROCESSORS = {
    'segmentation': ('SegDataPreProcessor',),
    'detection': ('DetDataPreprocessor',),
    'classification': ('ErasingDataPreprocessor', 'ImgDataPreprocessor'),
}


def check(cfg: Mapping[str, Any]) -> str:
    """Return the task of a config's model if it can be exported.

    Raises:
        ValueError: names what cannot be, and what can.
    """
    kind = bare_type(cfg['model'])
    if kind not in TASKS:
        raise ValueError(f'{kind} cannot be exported, only {", ".join(TASKS)}')
    model, task = cfg['model'], TASKS[kind]
    _check_input(model, PREPROCESSORS[task])
    if task in CHECKS:
        CHECKS[task](model)
    for step in pipeline_of(cfg):
        if bare_type(step) not in STEPS[task]:
            raise ValueError(
                f'the test pipeline has {bare_type(step)}, which a file '
                f'cannot repeat: only {", ".join(STEPS[task])}'
            )
    return task


def pipeline_of(cfg: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """The test pipeline of a config, wrappers of data sets looked through.

    Raises:
        ValueError: for a config without test data.
    """
    if 'test_dataloader' not in cfg:
        raise ValueError('the config has no test data: pre-training?')
    dataset = cfg['test_dataloader']['dataset']
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or (dataset.get('datasets') or [{}])[0]
        if not inner:
            raise ValueError("the config's test data has no pipeline")
        dataset = inner
    return list(dataset['pipeline'])


def is_verified(cfg: Mapping[str, Any]) -> bool:
    """Whether a model has only parts that the tables name."""
    model = cfg['model']
    if bare_type(model) not in SEGMENTORS:
        return True
    return all(bare_type(head) in HEADS for head in _decode_heads(model))


def _check_input(model: Mapping[str, Any], known: Sequence[str]) -> None:
    kind = bare_type(model.get('data_preprocessor')) or 'None'
    if kind not in known:
        raise ValueError(
            f'data_preprocessor {kind} cannot be exported, only '
            f'{", ".join(known)}'
        )
    channels = model['backbone'].get('in_channels', 3)
    if channels != 3:
        raise ValueError(
            f'a file takes images of 3 channels, the backbone {channels}'
        )


def _decode_heads(model: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    head = model['decode_head']
    return list(head) if isinstance(head, (list, tuple)) else [head]


def _check_segmentor(model: Mapping[str, Any]) -> None:
    for head in _decode_heads(model):
        reason = HEADS.get(bare_type(head))
        if reason:
            known = [name for name, why in HEADS.items() if why is None]
            raise ValueError(
                f'{bare_type(head)} cannot be exported: {reason}; heads '
                f'that can: {", ".join(known)}'
            )
    cfg = model.get('test_cfg') or {}
    padding = model['data_preprocessor'].get('test_cfg')
    if cfg.get('mode') == 'slide' and padding:
        raise ValueError(
            'test_cfg.mode slide with data_preprocessor.test_cfg cannot be '
            'exported: padding is in the graph, windows are cut before it'
        )


def _check_detector(model: Mapping[str, Any]) -> None:
    for part, kind in _parts(model):
        if kind not in PARTS[part]:
            raise ValueError(
                f'{part} {kind} cannot be exported, only '
                f'{", ".join(PARTS[part])}'
            )
    if 'neck' not in model:
        raise ValueError('a detector without a neck cannot be exported')
    if 'shared_head' in model['roi_head']:
        raise ValueError('roi_head.shared_head cannot be exported')
    for row in _all_of(model['roi_head'].get('bbox_head')):
        _check_box_head(row)
    for name in ('rpn', 'rcnn'):
        _check_test_cfg(name, model['test_cfg'][name])


def _parts(model: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    """Yield the parts in :data:`PARTS` of a detector, with their types."""
    found = [('rpn_head', model.get('rpn_head'))]
    found.append(('roi_head', model.get('roi_head')))
    for key, value in found:
        for row in _all_of(value):
            yield key, bare_type(row)
            found += [(k, v) for k, v in row.items() if k in PARTS]


def _all_of(part: Any) -> List[Mapping[str, Any]]:
    """The stages of a part of a config; none where it is absent."""
    if not part:
        return []
    return list(part) if isinstance(part, (list, tuple)) else [part]


def _check_box_head(head: Mapping[str, Any]) -> None:
    loss = bare_type(head.get('loss_cls')) or 'CrossEntropyLoss'
    if loss != 'CrossEntropyLoss' or head.get('loss_cls', {}).get(
        'use_sigmoid'
    ):
        raise ValueError(
            f'bbox_head.loss_cls {loss} cannot be exported, only '
            f'CrossEntropyLoss with use_sigmoid=False (softmax)'
        )
    coder = head.get('bbox_coder', {})
    if coder.get('add_ctr_clamp') or not head.get('with_reg', True):
        raise ValueError(
            'bbox_head: add_ctr_clamp and with_reg=False cannot be exported'
        )


def _check_test_cfg(name: str, cfg: Mapping[str, Any]) -> None:
    kind, _ = options_of(cfg.get('nms') or {})
    if name == 'rpn' and kind != 'nms':
        raise ValueError(f'test_cfg.rpn.nms {kind} cannot be exported')
    keys = ['max_per_img'] + (['nms_pre'] if name == 'rpn' else [])
    for key in keys:
        if int(cfg.get(key, -1)) <= 0:
            raise ValueError(
                f'test_cfg.{name}.{key} must be a positive number in an '
                f'export, got {cfg.get(key)}'
            )


# Of parts that a config chooses; those of a classifier are always the same.
CHECKS: Dict[str, Callable[[Mapping[str, Any]], None]] = {
    'segmentation': _check_segmentor,
    'detection': _check_detector,
}
