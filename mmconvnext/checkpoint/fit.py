"""Whether a checkpoint of a whole model fits a model, and what would help.

mmengine loads what fits and goes on with initial values for the rest. Here a
test needs every tensor, and training that starts from a whole model needs
every tensor of the backbone; only heads for another number of classes may
differ there.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from torch import Tensor, nn

from .detect import Found, detect, some_of
from .export import export_detector
from .heads import is_classifier, spell_native
from .sources import CheckpointError

Shapes = Tuple[Tuple[int, ...], Tuple[int, ...]]
# Batch norm counts its batches; files before torch 1.0 have no such count.
OPTIONAL = re.compile(r'(^|\.)num_batches_tracked$')


class Fit(NamedTuple):
    """How the tensors of a file and of a model meet.

    Attributes:
        fits: names in both, of equal shape.
        missing: names that only the model has.
        left: names that only the file has.
        shapes: name to the shape in the file and in the model.
    """

    fits: List[str]
    missing: List[str]
    left: List[str]
    shapes: Dict[str, Shapes]

    def problems(self) -> str:
        """Say what does not fit, in a line; '' where all does."""
        parts = [
            f'{len(names)} tensors {what} ({some_of(names)})'
            for what, names in (
                ('of the model are not in the file', self.missing),
                ('of the file are not in the model', self.left),
                ('have another shape', _shape_texts(self.shapes)),
            )
            if names
        ]
        return '; '.join(parts)


def _shape_texts(shapes: Mapping[str, Shapes]) -> List[str]:
    return [
        f'{name}: {list(file)} in the file, {list(model)} in the model'
        for name, (file, model) in shapes.items()
    ]


def state_of(raw: Any) -> Dict[str, Tensor]:
    """Return the tensors that mmengine takes from a file, by its names."""
    state = raw.get('state_dict', raw) if isinstance(raw, Mapping) else {}
    return {
        re.sub(r'^module\.', '', key): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Compare the names and shapes of a file with those of a model."""
    goals = {key: tuple(v.shape) for key, v in model.state_dict().items()}
    shapes = {
        key: (tuple(state[key].shape), goals[key])
        for key in goals
        if key in state and tuple(state[key].shape) != goals[key]
    }
    return Fit(
        fits=[key for key in goals if key in state and key not in shapes],
        missing=[
            key
            for key in goals
            if key not in state and not OPTIONAL.search(key)
        ],
        left=[key for key in state if key not in goals],
        shapes=shapes,
    )


def native(model: nn.Module, raw: Any, name: str) -> Any:
    """Turn a published classifier into what a classifier of ours takes.

    Args:
        model: that will be loaded.
        raw: what the file holds.
        name: of the file, for the message.

    Returns:
        A dict with ``state_dict``: ``raw`` itself where it is one by our
        names already, and for other models.

    Raises:
        CheckpointError: for a file without a classifier that fits.
    """
    if not is_classifier(model):
        return raw
    state = state_of(raw)
    fit = compare(model, state)
    if not fit.missing and not fit.left:
        # mmengine's EMAHook reads this key alone.
        return raw if 'state_dict' in raw else dict(state_dict=state)
    try:
        return dict(state_dict=spell_native(model, raw))
    except CheckpointError as error:
        raise CheckpointError(
            f'{name} does not fit the model of the config: {error}'
        ) from error


def require_whole(model: nn.Module, raw: Any, name: str) -> List[str]:
    """Check that a file has every tensor of a model, in its shape.

    Heads of the file that the model does not have (an auxiliary head, the
    mask head where boxes are asked for) are the one thing that may be left.

    Args:
        model: that will be loaded.
        raw: what the file holds.
        name: of the file, for the message.

    Returns:
        A line for each head that is left out.

    Raises:
        CheckpointError: says what does not fit and what would help.
    """
    fit = compare(model, state_of(raw))
    heads = _absent_heads(model, fit.left)
    left = [key for key in fit.left if not key.startswith(tuple(heads))]
    fit = fit._replace(left=left if heads else fit.left)
    problems = fit.problems()
    if problems:
        raise CheckpointError(
            f'{name} does not fit the model of the config: {problems}. '
            f'{advice(model, raw, name)}'
        )
    return [
        f'{name}: the model has no {head[:-1]}, left out' for head in heads
    ]


def require_backbone(model: nn.Module, raw: Any, name: str) -> str:
    """Check that training can start from a whole model's file.

    The backbone has to fit whole, neck and heads as well, but for the first
    dimension of tensors in heads: that is the number of classes.

    Returns:
        An account: tensors by part, and heads that start anew.

    Raises:
        CheckpointError: says what does not fit and what would help.
    """
    fit = compare(model, state_of(raw))
    classes = {
        key: shapes
        for key, shapes in fit.shapes.items()
        if 'head' in key and shapes[0][1:] == shapes[1][1:]
    }
    rest = {k: v for k, v in fit.shapes.items() if k not in classes}
    heads = _absent_heads(model, fit.left)
    left = [k for k in fit.left if not heads or not k.startswith(tuple(heads))]
    problems = fit._replace(shapes=rest, left=left).problems()
    if problems:
        raise CheckpointError(
            f'load_from: {name} does not fit the model of the config: '
            f'{problems}. {advice(model, raw, name)}'
        )
    return _account(model, fit, classes, heads, name)


def _account(
    model: nn.Module,
    fit: Fit,
    classes: Mapping[str, Shapes],
    heads: List[str],
    name: str,
) -> str:
    rows = [('checkpoint', name)]
    for part, module in model.named_children():
        total = len(module.state_dict())
        found = sum(key.startswith(f'{part}.') for key in fit.fits)
        if total:
            rows.append((part, f'{found} of {total} tensors'))
    if classes:
        text = some_of(_shape_texts(classes))
        rows.append(('start anew', f'for other classes: {text}'))
    if heads:
        rows.append(('left out', ', '.join(head[:-1] for head in heads)))
    width = max(len(row[0]) for row in rows) + 2
    return '\n'.join(f'{key:<{width}}{text}' for key, text in rows)


def _absent_heads(model: nn.Module, left: List[str]) -> List[str]:
    """Name the heads of a file that the model does not have at all."""
    have = {f'{name}.' for name, _ in model.named_modules()}
    heads: Dict[str, None] = {}
    for key in left:
        parts = key.split('.')
        for depth in range(1, len(parts)):
            prefix = '.'.join(parts[:depth]) + '.'
            if prefix not in have:
                if parts[depth - 1].endswith('_head'):
                    heads[prefix] = None
                break
    return list(heads)


def advice(model: nn.Module, raw: Any, name: str) -> str:
    """Say what would help with a file that does not fit a model."""
    if is_classifier(model):
        return _classes_text(model, state_of(raw))
    with contextlib.suppress(CheckpointError):
        if not compare(model, export_detector(raw)[0]).problems():
            return (
                f'Converted it would fit: python tools/convert_checkpoint.py '
                f'{name} OUT.pth --to native --whole'
            )
    try:
        found = detect(raw)
    except CheckpointError:
        return f'{_parts_text(raw)}, the model {_names(model.state_dict())}'
    if _heads_of(raw):
        return (
            f'{_parts_text(raw)}, the model {_names(model.state_dict())}; '
            f'its backbone is {found}'
        )
    return _backbone_alone(found, name)


def _classes_text(model: Any, state: Mapping[str, Tensor]) -> str:
    bias = state.get('head.bias')
    if bias is None or bias.shape == model.head.bias.shape:
        return f'The file is {detect(state)}'
    return (
        f'The file has {len(bias)} classes, the model '
        f'{len(model.head.bias)}: model.num_classes of the config'
    )


def _backbone_alone(found: Found, name: str) -> str:
    return (
        f'It is a backbone without neck and heads ({found}): training starts '
        f'from it by --cfg-options model.backbone.init_cfg.type=Pretrained '
        f'model.backbone.init_cfg.checkpoint={name}'
    )


def _heads_of(raw: Any) -> List[str]:
    # Below a wrapper's prefix too, as _orig_mod.
    parts = {part for key in state_of(raw) for part in key.split('.')[:-1]}
    return sorted(part for part in parts if part.endswith('_head'))


def _names(keys: Any) -> str:
    return ', '.join(dict.fromkeys(key.split('.')[0] for key in keys))


def _parts_text(raw: Any) -> str:
    return f'The file has {_names(state_of(raw)) or "no tensors"}'
