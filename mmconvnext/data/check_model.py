"""Judge the heads of a model against the classes of its data."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Sequence, Tuple

from .findings import Finding
from .sources import Source, bare_name, name_of

# Their classes are not those of the data set: objects or not, borders, maps
# of things and stuff.
OTHERS = ('rpn_head', 'semantic_head', 'panoptic_head')
BORDERS = ('STDCHead', 'PIDHead')


def heads(node: Any, name: str = '') -> Iterator[Tuple[str, Dict]]:
    """Yield every head of a model's config that has a number of classes."""
    if isinstance(node, dict):
        if 'num_classes' in node and 'head' in name.rsplit('.', 1)[-1]:
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
        where = f'{name_of(cfg)}, model.{name}'
        if bare_name(head.get('type')) in BORDERS:
            continue
        if head['num_classes'] != len(classes):
            yield _other_number(where, head, classes)
        elif _is_constant(head):
            yield _one_class(where, classes)


def _other_number(where: str, head: Dict, classes: Sequence[str]) -> Finding:
    names = ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '')
    return Finding(
        'error',
        where,
        f'num_classes={head["num_classes"]}',
        f'{len(classes)}, the classes of the data ({names})',
        f'num_classes={len(classes)} in this head, or correct classes',
    )


def _is_constant(head: Dict) -> bool:
    """Whether a softmax over one channel gives 1, and a loss of 0."""
    losses = head.get('loss_decode')
    losses = losses if isinstance(losses, (list, tuple)) else [losses]
    channels = head.get('out_channels') or head['num_classes']
    softmax = [
        loss is None
        or bare_name(loss.get('type')) == 'CrossEntropyLoss'
        and not loss.get('use_sigmoid', False)
        for loss in losses
    ]
    # Detectors have no loss_decode, and a background of their own.
    return channels == 1 and 'loss_decode' in head and any(softmax)


def _one_class(where: str, classes: Sequence[str]) -> Finding:
    return Finding(
        'error',
        where,
        'one output and a softmax over it: the loss is 0 and the gradient 0',
        'two classes, or a sigmoid',
        f"classes=('background', {classes[0]!r}), num_classes=2 and label "
        'maps of 0 and 1 (reduce_zero_label=False)',
    )
