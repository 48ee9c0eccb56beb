"""Judge the heads of a model against the classes of its data."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterator, Sequence, Tuple

from ..configs import as_list
from .findings import Finding
from .sources import Source, bare_name, name_of

# Their classes are not those of the data set: objects or not, borders, maps
# of things and stuff.
OTHERS = ('rpn_head', 'semantic_head', 'panoptic_head')
BORDERS = ('STDCHead', 'PIDHead')
DECODER = re.compile(r'(decode|auxiliary)_head(\[\d+\])?$')
# Losses of MMSegmentation that take a softmax over the channels where an
# option has its usual value: the option, and that value.
DEFAULT = 'CrossEntropyLoss'
SOFTMAX: Dict[str, Tuple[str, Any]] = {
    'CrossEntropyLoss': ('use_sigmoid', False),
    'WeightedCrossEntropyLoss': ('', False),
    'LovaszLoss': ('loss_type', 'multi_class'),
    'OhemCrossEntropy': ('', False),
    'TverskyLoss': ('', False),
    'HuasdorffDisstanceLoss': ('', False),
}


def heads(node: Any, name: str = '') -> Iterator[Tuple[str, Dict]]:
    """Yield every head of a model's config that has a number of classes."""
    if isinstance(node, dict):
        whole = bare_name(node.get('type')) == 'ImageClassifier'
        is_head = whole or 'head' in name.rsplit('.', 1)[-1]
        if 'num_classes' in node and is_head:
            yield name, node
        for key, child in node.items():
            if key not in OTHERS:
                yield from heads(child, f'{name}.{key}' if name else key)
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from heads(child, f'{name}[{i}]')


def check_model(cfg: Any, source: Source) -> Iterator[Finding]:
    """Compare the heads with the classes of the training data."""
    classes = source.classes
    # A detector that is given the names of what to find.
    if not classes or getattr(source.data, 'return_classes', False):
        return
    for name, head in heads(cfg.get('model') or {}):
        where = f'{name_of(cfg)}, {".".join(filter(None, ("model", name)))}'
        if bare_name(head.get('type')) in BORDERS:
            continue
        if head['num_classes'] != len(classes):
            yield _other_number(where, head, classes)
        elif _is_constant(name, head):
            yield _one_class(where, classes)
        for loss in as_list(head.get('loss_decode')):
            if loss.get('class_weight') and _stops_at_ignored(loss):
                yield _ignored_pixels(where)


def _other_number(where: str, head: Dict, classes: Sequence[str]) -> Finding:
    names = ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '')
    return Finding(
        'error',
        where,
        f'num_classes={head["num_classes"]}',
        f'{len(classes)}, the classes of the data ({names})',
        f'num_classes={len(classes)} there, or correct classes',
    )


def _is_constant(name: str, head: Dict) -> bool:
    """Whether a softmax over one channel gives 1, and a loss of 0."""
    # Detectors and mask transformers have a background of their own.
    pixels = 'loss_decode' in head or DECODER.search(name)
    if not pixels or 'loss_cls' in head:
        return False
    losses = as_list(head.get('loss_decode')) or [{}]
    channels = head.get('out_channels') or head['num_classes']
    return channels == 1 and any(map(_has_softmax, losses))


def _has_softmax(loss: Dict) -> bool:
    key, usual = SOFTMAX.get(bare_name(loss) or DEFAULT, ('', None))
    value = loss.get(key, usual)
    return value is False or value == 'multi_class'


def _one_class(where: str, classes: Sequence[str]) -> Finding:
    return Finding(
        'error',
        where,
        'one output and a softmax over it: the loss is 0 and the gradient 0',
        'two classes, or a sigmoid',
        f"classes=('background', {classes[0]!r}), num_classes=2 and label "
        'maps of 0 and 1 (reduce_zero_label=False)',
    )


def _stops_at_ignored(loss: Dict) -> bool:
    """Try the host's cross entropy with weights of classes.

    That of MMSegmentation 1.2.2 takes the weight of class 255; that of the
    maintained fork 1.4.2 fails with ``avg_non_ignore``.
    """
    if bare_name(loss) != DEFAULT or loss.get('use_sigmoid'):
        return False
    import torch
    from mmseg.models.losses.cross_entropy_loss import cross_entropy

    try:
        cross_entropy(
            torch.zeros(1, 2, 1, 2),
            torch.tensor([[[0, 255]]]),
            class_weight=torch.ones(2),
            ignore_index=255,
            avg_non_ignore=loss.get('avg_non_ignore', False),
        )
    except IndexError:
        return True
    return False


def _ignored_pixels(where: str) -> Finding:
    import mmseg

    return Finding(
        'warning',
        f'{where}.loss_decode',
        f'{DEFAULT} with class_weight, which MMSegmentation '
        f'{mmseg.__version__} cannot compute where a pixel is ignored (255)',
        'a loss that leaves such pixels out; padding is ignored too',
        "dict(type='mmconvnext.WeightedCrossEntropyLoss', class_weight=...)",
    )
