"""Fit a checkpoint of any format to a model, whole or not at all.

:mod:`.detect` finds the backbone and renames its keys; this module checks
that it fits the model, adapts what may differ, and writes an
:class:`Account` of what happened to each key.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .detect import Found, is_plain, sizes_text, stage_sizes, translate
from .formats import LICENCES
from .sources import CheckpointError


@dataclasses.dataclass
class Account:
    """What happened to each key; ``print`` it for a short table.

    Args:
        found: what the checkpoint is.
        source: where it came from.
        loaded: our name to the key it was read from.
        dropped: key to the reason it is not loaded.
        absent: our name to the reason it may be missing.
        changed: our name to what was done beyond renaming.
        verb: what was done to the tensors in ``loaded``.
        note: what a reader of the result has to know.
    """

    found: Found
    source: str = ''
    loaded: Dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: Dict[str, str] = dataclasses.field(default_factory=dict)
    absent: Dict[str, str] = dataclasses.field(default_factory=dict)
    changed: Dict[str, str] = dataclasses.field(default_factory=dict)
    verb: str = 'loaded'
    note: str = ''

    def __str__(self) -> str:
        rows = [
            ('checkpoint', self.source or 'a state dict'),
            ('is', str(self.found)),
            ('prefix', self.found.prefix or '(none)'),
            ('licence', licence_of(self.source, self.found)),
            (self.verb, f'{len(self.loaded)} tensors'),
            *_group('dropped', self.dropped, self.found.prefix),
            *_group('absent', self.absent, self.found.prefix),
            *(('changed', f'{k}: {v}') for k, v in self.changed.items()),
            *([('note', self.note)] if self.note else []),
        ]
        return '\n'.join(f'{name:<11}{text}' for name, text in rows)


def _group(
    title: str, reasons: Mapping[str, str], prefix: str
) -> List[Tuple[str, str]]:
    rows = []
    for reason, count in Counter(reasons.values()).items():
        keys = [key for key, why in reasons.items() if why == reason]
        heads = list(dict.fromkeys(_head(key, prefix) for key in keys))
        more = ', ...' if len(heads) > 4 else ''
        names = ', '.join(heads[:4]) + more
        rows.append((title, f'{count} tensors ({names}): {reason}'))
    return rows


def _head(key: str, prefix: str) -> str:
    """Name the first part of a key that the prefix does not have."""
    shared = os.path.commonprefix([key.split('.'), prefix.split('.')])
    return key.split('.')[len(shared)]


def convert(
    state_dict: Any,
    model: nn.Module,
    ema: bool = False,
    prefix: Optional[str] = None,
    final_norm: bool = False,
) -> Tuple[Dict[str, Tensor], Account]:
    """Turn a checkpoint of any format into a state dict of ``model``.

    Args:
        state_dict: tensors by name, in any nesting of dicts.
        model: a ConvNeXt or ConvNeXtV2 backbone; it is not changed.
        ema: take the averaged weights instead of the others.
        prefix: of the wanted copy, where there are several.
        final_norm: start ``norm3`` from the classifier's last norm. Off by
            default: that norm acts on pooled features of one stage, so its
            scale does not suit a map, and no other stage has one.

    Returns:
        The tensors to load, in the model's types and on the checkpoint's
        device, and the account of every key on both sides.

    Raises:
        CheckpointError: for anything that is not accounted for. The output
            norms ``norm{i}`` may be absent, nothing else.
    """
    target = _target(model)
    found, tensors, keys, dropped, _ = translate(
        state_dict, ema, prefix, is_plain(target)
    )
    account = Account(found, dropped=dict(dropped))
    if final_norm and 'norm3.weight' not in target:
        raise CheckpointError('final_norm: the model has no norm3')
    _last_norm(tensors, keys, account, final_norm)
    _check_fit(found, target)
    _check_grn(tensors)
    result = {}
    for name in [name for name in tensors if name not in target]:
        account.dropped[keys[name]] = _unused(name)
        del tensors[name]
    for name, goal in target.items():
        if name in tensors:
            value = _inflate(name, tensors[name], goal, account)
            result[name] = checked(keys[name], value, goal)
            account.loaded[name] = keys[name]
        elif re.match(r'norm\d\.', name):
            account.absent[name] = 'output norms keep their initial values'
        else:
            raise CheckpointError(f'the model has {name}, no ConvNeXt does')
    return result, account


def _target(model: nn.Module) -> Dict[str, Tensor]:
    target = model.state_dict()
    if 'downsample_layers.0.0.weight' not in target:
        raise CheckpointError(
            f'{type(model).__name__} is not a ConvNeXt backbone; pass the '
            f'backbone itself, as in load(model.backbone, ...)'
        )
    return target


def _last_norm(
    tensors: Dict[str, Tensor],
    keys: Dict[str, str],
    account: Account,
    wanted: bool,
) -> None:
    """Move the classifier's last norm to ``norm3``, or drop it."""
    dense = any(re.match(r'norm[0-2]\.', name) for name in tensors)
    # mmpretrain's classifiers call it norm3 as its dense backbones do.
    lone = account.found.format == 'mmpretrain' and not dense
    start = 'norm3' if lone and 'norm3.weight' in tensors else 'norm'
    if f'{start}.weight' not in tensors:
        if wanted:
            raise CheckpointError('final_norm: the file has no last norm')
        return
    if wanted and start == 'norm' and 'norm3.weight' in tensors:
        raise CheckpointError('final_norm: the file has a norm3 of its own')
    for p in ('weight', 'bias'):
        key = keys.pop(f'{start}.{p}')
        value = tensors.pop(f'{start}.{p}')
        if wanted:
            tensors[f'norm3.{p}'], keys[f'norm3.{p}'] = value, key
            account.changed[f'norm3.{p}'] = f'from {key}, as asked'
        else:
            account.dropped[key] = "classifier's last norm (final_norm=True)"


def _check_fit(found: Found, target: Mapping[str, Tensor]) -> None:
    depths, dims = stage_sizes(target)
    version = 2 if any('.grn.' in name for name in target) else 1
    if found.version != version:
        other = {1: 'ConvNeXt', 2: 'ConvNeXtV2'}[found.version]
        raise CheckpointError(
            f'the file is ConvNeXt V{found.version}, the model is '
            f'V{version}; use type={other!r}'
        )
    if found.layer_scale and is_plain(target):
        raise CheckpointError(
            'the file has a layer scale, the model none; build it without '
            'layer_scale_init_value=0'
        )
    if (found.depths[: len(depths)], found.dims[: len(dims)]) != (
        depths,
        dims,
    ):
        raise CheckpointError(
            f'this is {sizes_text(found.depths, found.dims)}; the model is '
            f'{sizes_text(depths, dims)}'
        )


def _check_grn(tensors: Mapping[str, Tensor]) -> None:
    gammas = [t for name, t in tensors.items() if name.endswith('grn.gamma')]
    if gammas and not any(gamma.any() for gamma in gammas):
        raise CheckpointError(
            'GRN is zero in every block: this V2 file lost it in a '
            'conversion (or was never trained)'
        )


def _unused(name: str) -> str:
    if re.match(r'norm\d\.', name):
        return 'norm of a stage the model does not return'
    return 'stage after the last of out_indices, not built'


def _inflate(
    name: str, value: Tensor, goal: Tensor, account: Account
) -> Tensor:
    """Spread a 3-channel stem over other channels, sum preserved.

    Each channel is a copy of channel ``i % 3`` divided by the number of its
    copies; one or two channels are means of all three. So does timm's
    ``adapt_input_conv``, up to the scale. Equal channels give the same
    result as before.
    """
    have, want = value.shape[-3:-2], goal.shape[-3:-2]
    if name != 'downsample_layers.0.0.weight' or have == want:
        return value
    if have != (3,):
        raise CheckpointError(
            f'the file takes {have[0]} input channels, the model {want[0]}; '
            f'only 3 are adapted'
        )
    count = want[0]
    account.changed[name] = f'3 -> {count} input channels, sum preserved'
    if count < 3:
        return value.sum(1, keepdim=True).div(count).repeat(1, count, 1, 1)
    source = torch.arange(count) % 3
    copies = torch.bincount(source)[source].view(1, -1, 1, 1)
    return value[:, source] / copies.to(value)


def checked(key: str, value: Tensor, goal: Tensor) -> Tensor:
    """Return a tensor of a file in the type of the model's, if it fits."""
    if value.shape != goal.shape:
        raise CheckpointError(
            f'{key} is {tuple(value.shape)}, the model has {tuple(goal.shape)}'
        )
    value = value.detach().to(goal.dtype)
    if not torch.isfinite(value).all():
        raise CheckpointError(f'{key} contains infinite or NaN values')
    return value


def find_beside(
    state_dict: Any,
    goals: Mapping[str, Tensor],
    ema: bool = False,
    prefix: Optional[str] = None,
    plain: bool = False,
) -> Dict[str, Tensor]:
    """Find the parts next to a backbone, such as the decoder of FCMAE.

    Args:
        state_dict: tensors by name, in any nesting of dicts.
        goals: the tensors to look for, named from where the backbone is
            ``backbone.`` or, in the authors' files, ``encoder.``.
        ema, prefix: as for :func:`convert`.
        plain: as for :func:`translate`.

    Returns:
        The tensors in the shapes of ``goals``; empty where none is there.

    Raises:
        CheckpointError: for a part of them, or other sizes.
    """
    whole = translate(state_dict, ema, prefix, plain)
    parent = re.sub(r'(backbone|encoder)\.$', '', whole.found.prefix)
    found = {
        name: whole.others[parent + name]
        for name in goals
        if parent + name in whole.others
    }
    missing = [parent + name for name in goals if name not in found]
    if found and missing:
        raise CheckpointError(f'missing beside the backbone: {missing}')
    for name, value in found.items():
        if _bare(value.shape) != _bare(goals[name].shape):
            raise CheckpointError(
                f'{parent}{name} is {tuple(value.shape)}, the model has '
                f'{tuple(goals[name].shape)}; to load the backbone alone, '
                f'put init_cfg there'
            )
        value = value.reshape(goals[name].shape)
        found[name] = checked(parent + name, value, goals[name])
    return found


def _bare(shape: Sequence[int]) -> List[int]:
    return [size for size in shape if size != 1]


def licence_of(source: str, found: Found) -> str:
    """Name the licence that follows from the file name or the format."""
    name = source.rsplit('/', 1)[-1]
    texts = [text for what, text in LICENCES if re.search(what, name)]
    known = (texts + [found.licence])[0]
    return known or 'unknown: the format does not name one'
