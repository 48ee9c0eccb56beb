"""How a model is tested: named protocols, test-time augmentation."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from mmengine.config import Config, ConfigDict

from ..configs import as_list, bare_type, host_of, leaves, steps_of
from .classes import classifies

# Steps that resize an image to a size that they name.
RESIZES = ('Resize', 'FixScaleResize', 'FixShapeResize', 'LetterResize')
RESIZES += ('ResizeShortestEdge', 'ResizeToMultiple')
CROP = 'ResizedCenterCrop'


def use_tta(cfg: Config) -> None:
    """Wrap the model and exchange the pipeline for the augmenting one.

    A detector's masks cannot be merged: it then gives boxes alone.
    """
    _refuse_classifier(cfg, '--tta')
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError(
            f'--tta: {cfg.filename} has no tta_model and tta_pipeline'
        )
    if bare_type(cfg.tta_model) == 'DetTTAModel':
        _give_boxes_only(cfg)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for leaf in leaves(cfg.test_dataloader.dataset):
        leaf['pipeline'] = cfg.tta_pipeline


def _refuse_classifier(cfg: Config, option: str) -> None:
    if classifies(cfg):
        raise ValueError(
            f'{option}: a classifier sees one crop of an image; its size and '
            f'crop_ratio are those of ResizedCenterCrop in '
            f'test_dataloader.dataset.pipeline of {cfg.filename}'
        )


def _give_boxes_only(cfg: Config) -> None:
    roi_head = cfg.model.get('roi_head') or {}
    if 'mask_head' in roi_head:
        roi_head['mask_head'] = None
    for evaluator in as_list(cfg.test_evaluator):
        if bare_type(evaluator) == 'CocoMetric':
            evaluator['metric'] = 'bbox'


def use_protocol(cfg: Config, name: str) -> None:
    """Set mode, scales and flip to a row of the config's ``protocols``.

    Raises:
        ValueError: for a name or a mode that the config does not have.
    """
    _refuse_classifier(cfg, f'--protocol {name}')
    known = cfg.get('protocols') or {}
    if name not in known:
        raise ValueError(
            f'--protocol {name}: {cfg.filename} has '
            f'{", ".join(known) or "no protocols"}'
        )
    row = known[name]
    if row.mode == 'slide' and 'crop_size' not in cfg.model.test_cfg:
        raise ValueError(
            f'--protocol {name}: mode slide needs crop_size and stride in '
            f'model.test_cfg of {cfg.filename}'
        )
    cfg.model.test_cfg.mode = row.mode
    if row.flip or tuple(row.ratios) != (1.0,):
        (first, *_) = leaves(cfg.test_dataloader.dataset)
        cfg.tta_pipeline = augmenting(first.pipeline, row.ratios, row.flip)
        use_tta(cfg)


def augmenting(
    pipeline: Sequence[dict], ratios: Sequence[float], flip: bool
) -> List[dict]:
    """Turn a test pipeline into one that gives every scale, flipped or not.

    Scales are ratios of the pipeline's own, not of the image's size, unless
    that is what the pipeline has (``scale_factor``).

    Raises:
        ValueError: for a pipeline without ``Resize``.
    """
    names = [bare_type(step) for step in pipeline]
    if 'Resize' not in names:
        raise ValueError(
            f'the test pipeline has no Resize to vary, only {names}'
        )
    at = names.index('Resize')
    before, resize, after = pipeline[:at], pipeline[at], pipeline[at + 1 :]
    flips = [
        dict(type='RandomFlip', prob=p, direction='horizontal')
        for p in ([0.0, 1.0] if flip else [0.0])
    ]
    scales = [_scaled(resize, ratio) for ratio in ratios]
    steps = [scales, flips, *([step] for step in after)]
    return [*before, dict(type='TestTimeAug', transforms=steps)]


def _scaled(resize: Mapping, ratio: float) -> Dict:
    """Multiply the size that a ``Resize`` step has."""
    if resize.get('scale') is None:
        factor = resize.get('scale_factor') or 1.0
        if isinstance(factor, (list, tuple)):
            return dict(resize, scale_factor=tuple(f * ratio for f in factor))
        return dict(resize, scale_factor=factor * ratio)
    scale = resize['scale']
    if isinstance(scale, int):
        return dict(resize, scale=int(scale * ratio))
    return dict(resize, scale=tuple(int(side * ratio) for side in scale))


def describe(cfg: Config, name: Optional[str]) -> str:
    """Say in a line how the model is tested, as far as the config says."""
    try:
        return ', '.join(_words(cfg, name))
    except Exception as error:
        # It is printed after hours of testing, which it must not fail.
        return f'{name or "as configured"} (no description: {error!r})'


def _words(cfg: Config, name: Optional[str]) -> List[str]:
    tta = 'module' in cfg.model
    model = cfg.model.module if tta else cfg.model
    steps = []
    for leaf in leaves(cfg.test_dataloader.dataset):
        steps += steps_of(leaf.get('pipeline'))
    flips = [s for s in steps if bare_type(s) == 'RandomFlip']
    # mmcv's own default is not to flip, mmdet's and mmseg's as well.
    flipped = any(flip.get('prob') for flip in flips)
    scales = dict.fromkeys(text for step in steps for text in _sizes(step))
    if classifies(cfg):
        sizes = [f'scales {" ".join(scales)}'] if scales else []
        flip = ['flip on'] if flipped else []
        crops = [_crop(s) for s in steps if bare_type(s) == CROP]
        return [name or 'as configured', *sizes, *flip, *crops]
    return [
        name or 'as configured',
        *_outputs(model, host_of(cfg)),
        f'flip {"on" if flipped else "off"}',
        f'scales {" ".join(scales) or "of the image"}',
    ]


def _outputs(model: Mapping, host: str) -> Iterator[str]:
    """Say what a detector gives, or how a segmentor goes over an image."""
    test_cfg = model.get('test_cfg') or {}
    if 'mode' in test_cfg:
        keys = ('crop_size', 'stride')
        sizes = [_text(test_cfg[key]) for key in keys if key in test_cfg]
        whole = test_cfg['mode'] == 'whole'
        yield 'whole' if whole else 'slide ' + ' stride '.join(sizes)
    elif host == 'mmdet':
        parts = {**model, **(model.get('roi_head') or {})}
        masks = any(
            part.startswith(('mask_head', 'panoptic_')) and value is not None
            for part, value in parts.items()
        )
        yield 'boxes and masks' if masks else 'boxes'


def _crop(step: Mapping) -> str:
    """Say what :class:`mmconvnext.ResizedCenterCrop` leaves of an image."""
    sides = as_list(step.get('scale', 224))
    size = _text([sides[-1], sides[0]])
    ratio = step.get('crop_ratio', 0.875)
    if ratio is None:
        return f'whole image squeezed to {size}'
    return f'{size} crop of {ratio:g}'


def _sizes(step: Mapping) -> Iterator[str]:
    if bare_type(step) not in RESIZES:
        return
    if step.get('scale') is not None:
        yield _text(step['scale'])
    elif step.get('width') and step.get('height'):
        yield _text((step['width'], step['height']))
    elif step.get('scale_factor') is not None:
        yield f'x{_text(step["scale_factor"])}'


def _text(size: Any) -> str:
    """Write one number, or several as WIDTHxHEIGHT."""
    return 'x'.join(str(number) for number in as_list(size))
