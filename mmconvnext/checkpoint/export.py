"""Write a backbone under the names and shapes of another library."""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from .convert import Account
from .detect import Backbone, Found, is_plain, translate
from .formats import CONV_MLP, EXPORTS, Format, from_ours, rename
from .heads import as_classifier, spell_head
from .sources import CheckpointError


def export(
    model_or_state_dict: Union[nn.Module, Mapping[str, Any]],
    format: str,
    ema: bool = False,
    prefix: Optional[str] = None,
) -> Dict[str, Tensor]:
    """Name and shape a backbone as another library does.

    The output norms go where the format has a place for them: all in
    native, official, mmpretrain and transformers (its Backbone classes);
    in timm ``norm3`` becomes ``head.norm``. A classifier is written with its
    head in official, timm and transformers (ForImageClassification).

    Args:
        model_or_state_dict: a backbone, a classifier, a detector, or the
            state dict of one, in any format that :func:`detect` reads.
        format: one of ``EXPORTS``.
        ema, prefix: as for :func:`convert`.

    Raises:
        CheckpointError: for another format or an incomplete backbone.
    """
    return export_with_account(model_or_state_dict, format, ema, prefix)[0]


def export_with_account(
    source: Union[nn.Module, Mapping[str, Any]],
    format: str,
    ema: bool = False,
    prefix: Optional[str] = None,
) -> Tuple[Dict[str, Tensor], Account]:
    """Do what :func:`export` does, and say where each tensor went."""
    if format not in EXPORTS:
        raise CheckpointError(
            f'format {format!r} is none of {", ".join(EXPORTS)}'
        )
    state, plain = source, False
    if isinstance(source, nn.Module):
        state = source.state_dict()
        plain = is_plain(state)
    whole = translate(state, ema, prefix, plain)
    if len(whole.found.depths) < 4 and format != 'native':
        raise CheckpointError(
            f'{format} needs all four stages, the backbone has '
            f'{len(whole.found.depths)}; build it with out_indices up to 3'
        )
    return _spell(whole, format)


def _spell(whole: Backbone, format: str) -> Tuple[Dict[str, Tensor], Account]:
    row, whole = EXPORTS[format], as_classifier(whole, format)
    account = Account(whole.found, dropped=dict(whole.dropped), verb='written')
    norms = any(re.match(r'norm\d\.', name) for name in whole.tensors)
    account.note = row.note if norms else ''
    pairs, result = from_ours(row, whole.tensors), {}
    for name, tensor in whole.tensors.items():
        theirs, key = rename(name, pairs), whole.keys[name]
        if theirs is None:
            account.dropped[key] = f'{format} has no place for it'
            continue
        result[theirs] = _reshaped(name, tensor, row, whole.found)
        account.loaded[theirs] = key
    return _with_head(whole, format, result, account), account


def _with_head(
    whole: Backbone, format: str, state: Dict[str, Tensor], account: Account
) -> Dict[str, Tensor]:
    """Add the head of a classifier to its exported backbone."""
    prefix, head, keys = spell_head(whole, format)
    account.loaded = {prefix + k: v for k, v in account.loaded.items()}
    account.loaded.update(keys)
    for key in keys.values():
        del account.dropped[key]
    return {**{prefix + k: v for k, v in state.items()}, **head}


def export_detector(
    state_dict: Mapping[str, Any], ema: bool = False
) -> Tuple[Dict[str, Tensor], Account]:
    """Rename the backbone of a whole detector or segmentor, keep the rest.

    For files of mmdet 2 and mmseg 0.x, such as the authors' of V1: necks
    and heads have the same names in mmdet 3 and mmseg 1.

    Raises:
        CheckpointError: where there is no backbone under ``backbone.``.
    """
    whole = translate(state_dict, ema, 'backbone')
    prefix = whole.found.prefix
    if not prefix.endswith('backbone.'):
        raise CheckpointError(f'the backbone is at {prefix!r}, not backbone.')
    parent = prefix[: -len('backbone.')]
    result, account = _spell(whole, 'native')
    result = {f'backbone.{name}': value for name, value in result.items()}
    for key in [key for key in account.dropped if key.startswith(parent)]:
        if not key.startswith(prefix):
            del account.dropped[key]
            result[key[len(parent) :]] = whole.others[key]
            account.loaded[key[len(parent) :]] = key
    return result, account


def _reshaped(name: str, tensor: Tensor, row: Format, found: Found) -> Tensor:
    conv = (CONV_MLP,) if found.arch in row.conv_mlp else ()
    for reshape in (*(row.writes or ()), *conv):
        if re.search(rf'{reshape.leaf}$', name):
            tensor = tensor.reshape(reshape.theirs(tuple(tensor.shape)))
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def dataset_meta(raw: Any) -> Dict[str, Any]:
    """Keep what a host needs of ``meta``, under the names of mmengine."""
    meta = raw.get('meta') or {}
    names = {'CLASSES': 'classes', 'PALETTE': 'palette'}
    known = {new: meta[old] for old, new in names.items() if old in meta}
    return {'dataset_meta': meta.get('dataset_meta', known)}


def wrapped(state: Dict[str, Tensor], to: str, target: str) -> Any:
    """Put tensors where a format has them in a file of this name."""
    name, prefix = EXPORTS[to].wrap
    state = {prefix + key: value for key, value in state.items()}
    flat = not name or target.endswith('.safetensors')
    return state if flat else {name: state}
