"""Read a config into the description of its file."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from .. import __version__
from ..checkpoint.formats import LICENCES, NON_COMMERCIAL_V2
from ..configs import bare_type
from . import supported
from .description import Description

# What the tools that test and draw read of a config.
TEST_KEYS = (
    'default_scope',
    'data_root',
    'data_help',
    'data_check',
    'test_dataloader',
    'test_evaluator',
    'test_cfg',
    'visualizer',
    'default_hooks',
    'env_cfg',
    'log_processor',
)
TUPLE = '__tuple__'
SOURCES = ((r'convnextv2', NON_COMMERCIAL_V2), *LICENCES)


def describe(
    cfg: Any, precision: str = 'fp32', shape: Optional[Sequence[int]] = None
) -> Description:
    """Say what a program that runs the file has to know.

    Args:
        cfg: of the model.
        precision: of the file.
        shape: height and width that it takes; None: any.

    Raises:
        ValueError: for a test pipeline or a config that a file cannot hold.
    """
    task = supported.check(cfg)
    classes, palette = names_of(cfg)
    rule = crop_rule if task == 'classification' else resize_rule
    about = Description(
        task=task,
        classes=classes,
        palette=palette,
        resize=rule(supported.pipeline_of(cfg)),
        shape=None if shape is None else (int(shape[0]), int(shape[1])),
        precision=precision,
        version=__version__,
        config=Path(getattr(cfg, 'filename', None) or '').stem,
        licence=licence_of(cfg['model']),
        test=plain({key: cfg[key] for key in TEST_KEYS if key in cfg}),
    )
    if task in MORE:
        about = about._replace(**MORE[task](cfg['model']))
    _check_window(about)
    _check_classes(about, cfg['model'])
    return about


def names_of(
    cfg: Any,
) -> Tuple[Tuple[str, ...], Tuple[Tuple[int, int, int], ...]]:
    """Classes and colours of the config's test data; no image is read.

    Raises:
        ValueError: where class folders would name them and are not there.
    """
    if cfg.get('default_scope'):
        init_default_scope(cfg['default_scope'])
    dataset = copy.deepcopy(cfg['test_dataloader']['dataset'])
    dataset = {**dataset, 'lazy_init': True}
    try:
        meta = DATASETS.build(dataset).metainfo
    except FileNotFoundError as error:
        raise ValueError(
            f'the classes are not known ({error}); name them in '
            f'test_dataloader.dataset.metainfo.classes'
        ) from error
    palette = meta.get('palette')
    colours = palette if isinstance(palette, (list, tuple)) else ()
    return (
        tuple(map(str, meta['classes'])),
        tuple(tuple(int(c) for c in colour) for colour in colours),
    )


def resize_rule(steps: Sequence[Mapping[str, Any]]) -> Optional[Dict]:
    """The arguments of a pipeline's Resize that a runner repeats.

    Raises:
        ValueError: for more than one, or another way to interpolate.
    """
    found = [s for s in steps if bare_type(s) == 'Resize']
    if not found:
        return None
    if len(found) > 1:
        raise ValueError('the test pipeline resizes more than once')
    step = found[0]
    how = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    if how != ('cv2', 'bilinear'):
        raise ValueError(
            f'the test pipeline resizes by {" ".join(how)}, a runner by cv2 '
            f'bilinear only'
        )
    rule = dict(keep_ratio=bool(step.get('keep_ratio', False)))
    for key in ('scale', 'scale_factor'):
        if step.get(key) is not None:
            value = step[key]
            pair = isinstance(value, (list, tuple))
            rule[key] = list(value) if pair else [value, value]
            return rule
    raise ValueError('Resize in the test pipeline has no scale')


def crop_rule(steps: Sequence[Mapping[str, Any]]) -> Optional[Dict]:
    """The size and crop of a classifier's ResizedCenterCrop.

    Raises:
        ValueError: for more than one.
    """
    found = [s for s in steps if bare_type(s) == 'ResizedCenterCrop']
    if not found:
        return None
    if len(found) > 1:
        raise ValueError('the test pipeline resizes more than once')
    size = found[0].get('scale', 224)
    size = [size, size] if isinstance(size, int) else list(size)
    return dict(size=size, crop_ratio=found[0].get('crop_ratio', 0.875))


def licence_of(model: Mapping[str, Any]) -> str:
    """Name the licence of what the model was trained from, if it is known."""
    starts = [part.get('init_cfg') for part in (model, model['backbone'])]
    found = [start.get('checkpoint') for start in starts if start]
    source = next(filter(None, found), None)
    if not source:
        return 'not stated: the config starts from random weights'
    texts = [text for what, text in SOURCES if re.search(what, source)]
    return (texts or [f'that of {source}'])[0]


def plain(value: Any) -> Any:
    """Turn a part of a config into what JSON holds; tuples are marked.

    Raises:
        ValueError: for a value that JSON does not hold.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {TUPLE: [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f'a file cannot hold {value!r} of the config')


def unplain(value: Any) -> Any:
    """Undo :func:`plain`; types stay names."""
    if isinstance(value, dict):
        if set(value) == {TUPLE}:
            return tuple(unplain(item) for item in value[TUPLE])
        return {key: unplain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unplain(item) for item in value]
    return value


def config_of(about: Description) -> Config:
    """The config that a file holds: its test data, no model."""
    return Config(unplain(about.test or {}))


def _of_segmentor(model: Mapping[str, Any]) -> Dict[str, Any]:
    heads = model['decode_head']
    head = heads[-1] if isinstance(heads, (list, tuple)) else heads
    found: Dict[str, Any] = dict(
        align_corners=bool(head.get('align_corners', False))
    )
    if head.get('out_channels', head['num_classes']) == 1:
        found['threshold'] = float(head.get('threshold') or 0.3)
    cfg = model.get('test_cfg') or {}
    if cfg.get('mode', 'whole') == 'slide':
        found['window'] = _pair(cfg['crop_size'])
        found['stride'] = _pair(cfg['stride'])
    return found


def _of_detector(model: Mapping[str, Any]) -> Dict[str, Any]:
    if not model['roi_head'].get('mask_head'):
        return {}
    limit = model['test_cfg']['rcnn'].get('mask_thr_binary', 0.5)
    return dict(mask_threshold=float(limit))


# Task to what only its models have.
MORE = {'segmentation': _of_segmentor, 'detection': _of_detector}


def _check_classes(about: Description, model: Mapping[str, Any]) -> None:
    """Refuse names that are not those of a classifier's outputs.

    Raises:
        ValueError: with both numbers.
    """
    count = model.get('num_classes', len(about.classes))
    if about.task == 'classification' and count != len(about.classes):
        raise ValueError(
            f'the model has {count} classes, the test data '
            f'{len(about.classes)}; name them all, in their order, in '
            f'test_dataloader.dataset.metainfo.classes'
        )


def _pair(values: Sequence[int]) -> Tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _check_window(about: Description) -> None:
    """Refuse a fixed shape that the windows do not have.

    Raises:
        ValueError: with the shape that fits.
    """
    if about.window and about.shape and about.shape != about.window:
        raise ValueError(
            f'--shape {about.shape[0]} {about.shape[1]}: the model slides '
            f'windows over the image, the file takes one window: --shape '
            f'{about.window[0]} {about.window[1]}'
        )
