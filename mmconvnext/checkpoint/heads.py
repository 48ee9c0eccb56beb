"""The classifier of a checkpoint: its last norm and its linear head.

A backbone drops both, since a classifier normalises pooled features. What
classifies loads them, and an export of a classifier writes them.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from torch import Tensor, nn

from .convert import checked, convert
from .detect import Backbone, is_plain, translate
from .sources import CheckpointError

PARTS = ('weight', 'bias')
OURS = {f'{layer}.{part}' for layer in ('norm', 'head') for part in PARTS}
# What each format calls the linear layer. It is under the backbone's prefix
# (timm, the authors) or beside it (transformers, mmpretrain, ours).
NAMES: Dict[str, Tuple[str, ...]] = {
    'official': ('head', 'fc'),
    'timm': ('head.fc',),
    'transformers': ('classifier',),
    'torchvision': ('classifier.2',),
    'mmpretrain': ('head.fc',),
}
# What an export calls it, with the prefix that the backbone then has in
# each version. The other exports are of backbones alone.
WRITTEN: Dict[str, Tuple[str, Mapping[int, str]]] = {
    'official': ('head', {1: '', 2: ''}),
    'official_finetune': ('head', {1: '', 2: ''}),
    'timm': ('head.fc', {1: '', 2: ''}),
    'transformers': ('classifier', {1: 'convnext.', 2: 'convnextv2.'}),
}


class Classifier(NamedTuple):
    """Tensors by 'weight' and 'bias', and the keys they came from.

    Attributes:
        norm: of the pooled features, ``(C,)`` each; empty where there is
            none.
        head: ``(classes, C)`` and ``(classes,)``; empty likewise.
        keys: by 'norm.weight', 'head.bias' and so on.
    """

    norm: Dict[str, Tensor]
    head: Dict[str, Tensor]
    keys: Dict[str, str]


def find(whole: Backbone) -> Classifier:
    """Find the classifier that belongs to a backbone.

    A head that computes something else than ours is not found: with a
    hidden layer, or over features that were normalised before pooling.

    Raises:
        CheckpointError: for half a head, or one of another width.
    """
    start, name = _norm_name(whole), _head_name(whole)
    norm = {p: whole.tensors[f'{start}.{p}'] for p in PARTS} if start else {}
    keys = {f'norm.{p}': whole.keys[f'{start}.{p}'] for p in norm}
    head: Dict[str, Tensor] = {}
    if not name or _otherwise(whole):
        return Classifier(norm, head, keys)
    for p in PARTS:
        key = f'{name}.{p}'
        if key not in whole.others:
            raise CheckpointError(f'missing: {key} of the classifier')
        head[p], keys[f'head.{p}'] = whole.others[key], key
    _check_shape(head, whole.found.dims[-1], keys)
    return Classifier(norm, head, keys)


def _norm_name(whole: Backbone) -> str:
    if 'norm.weight' in whole.tensors:
        return 'norm'
    dense = any(re.match(r'norm[0-2]\.', name) for name in whole.tensors)
    # mmpretrain's classifiers call it norm3 as its dense backbones do.
    lone = whole.found.format == 'mmpretrain' and not dense
    return 'norm3' if lone and 'norm3.weight' in whole.tensors else ''


def _head_name(whole: Backbone) -> str:
    prefix = whole.found.prefix
    beside = re.sub(r'[^.]*\.$', '', prefix)
    names = [
        start + name
        for start in dict.fromkeys((prefix, beside))
        for name in NAMES.get(whole.found.format, ())
    ]
    found = [n for n in names if f'{n}.weight' in whole.others]
    return found[0] if found else ''


def _otherwise(whole: Backbone) -> str:
    """Say what a classifier computes that ours does not; '' for none."""
    if whole.keys.get('norm.weight', '').endswith('norm_pre.weight'):
        return 'it normalises before it pools (norm_pre), ours after it'
    hidden = [key for key in whole.others if '.pre_logits.' in key]
    return f'its head has a hidden layer ({hidden[0]})' if hidden else ''


def _check_shape(
    head: Mapping[str, Tensor], dim: int, keys: Mapping[str, str]
) -> None:
    weight, bias = (tuple(head[p].shape) for p in PARTS)
    if weight != (*bias, dim):
        raise CheckpointError(
            f'{keys["head.weight"]} is {weight} with a bias of {bias}; a '
            f'linear head over {dim} features is (classes, {dim})'
        )


def find_classifier(
    state_dict: Any,
    goals: Mapping[str, Tensor],
    ema: bool = False,
    prefix: Optional[str] = None,
    plain: bool = False,
    head: bool = True,
) -> Dict[str, Tensor]:
    """Find the last norm and the head that fill a classifier.

    Args:
        state_dict: tensors by name, in any nesting of dicts.
        goals: the tensors to fill: 'norm.weight', 'norm.bias',
            'head.weight', 'head.bias'.
        ema, prefix, plain: as for :func:`translate`.
        head: False finds the norm alone.

    Raises:
        CheckpointError: where the file has no classifier, one that does
            not fit, or one that computes something else.
    """
    whole = translate(state_dict, ema, prefix, plain)
    found = find(whole)
    _check_kind(whole, found, head)
    if head and len(found.head['bias']) != len(goals['head.bias']):
        raise CheckpointError(
            f'the file has {len(found.head["bias"])} classes, the model '
            f'{len(goals["head.bias"])}; head=False in init_cfg loads all '
            f'but the head'
        )
    parts = {f'norm.{p}': value for p, value in found.norm.items()}
    if head:
        parts.update({f'head.{p}': v for p, v in found.head.items()})
    return {
        name: checked(found.keys[name], value, goals[name])
        for name, value in parts.items()
    }


def _check_kind(whole: Backbone, found: Classifier, head: bool) -> None:
    other = _otherwise(whole)
    if other and (head or 'norm_pre' in other):
        raise CheckpointError(
            f'the file is another classifier than ours: {other}; init_cfg '
            f'of the backbone loads that alone'
        )
    if not found.norm or (head and not found.head):
        lacking = 'head' if found.norm else 'last norm'
        raise CheckpointError(
            f'the file is no classifier: it has no {lacking}. For weights '
            f'of pre-training put init_cfg into the backbone'
        )


def is_classifier(model: nn.Module) -> bool:
    """Whether a model has the names of our classifier, and no others."""
    names = set(model.state_dict())
    stem = 'backbone.downsample_layers.0.0.weight'
    rest = {name for name in names if not name.startswith('backbone.')}
    return stem in names and rest == OURS


def spell_native(model: nn.Module, raw: Any) -> Dict[str, Tensor]:
    """Give a classifier of any format the names of ours.

    Args:
        model: a classifier of ours; it is not changed.
        raw: what the file holds.

    Returns:
        All tensors of the model, the head with the classes of the file.

    Raises:
        CheckpointError: where the file has no such classifier, or its
            backbone is not the model's.
    """
    backbone: Any = model.backbone
    whole = translate(raw, plain=is_plain(backbone.state_dict()))
    found = find(whole)
    _check_kind(whole, found, head=True)
    tensors, _ = convert(raw, backbone)
    state = {f'backbone.{name}': value for name, value in tensors.items()}
    for layer, parts in (('norm', found.norm), ('head', found.head)):
        for part, value in parts.items():
            name = f'{layer}.{part}'
            state[name] = checked(found.keys[name], value, value)
    return state


def as_classifier(whole: Backbone, to: str) -> Backbone:
    """Call the last norm of a classifier ``norm`` before it is exported."""
    found, start = find(whole), _norm_name(whole)
    if start != 'norm3' or not found.head or to not in WRITTEN:
        return whole
    new = {name: re.sub(r'^norm3\.', 'norm.', name) for name in whole.tensors}
    return whole._replace(
        tensors={new[name]: value for name, value in whole.tensors.items()},
        keys={new[name]: key for name, key in whole.keys.items()},
    )


def spell_head(
    whole: Backbone, to: str
) -> Tuple[str, Dict[str, Tensor], Dict[str, str]]:
    """Name a head as an export does.

    Returns:
        The prefix of the backbone beside it, the tensors, and the key that
        each came from; all empty without a classifier in the source, or a
        place for one.
    """
    found = find(whole)
    if not found.head or not found.norm or to not in WRITTEN:
        return '', {}, {}
    name, prefixes = WRITTEN[to]
    head = {f'{name}.{p}': found.head[p].detach().clone() for p in PARTS}
    keys = {f'{name}.{p}': found.keys[f'head.{p}'] for p in PARTS}
    return prefixes[whole.found.version], head, keys
