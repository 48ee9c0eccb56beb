"""Load any published ConvNeXt checkpoint, whole or not at all.

A state dict goes through four steps: find the backbone in it, rename its
keys by the row of ``formats.FORMATS``, check every name and shape (both in
``detection``), fit it to a model (here). An :class:`Account` says what
happened to each key. Files are read by ``weights_io``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import checkpoint as engine
from torch import Tensor, nn

from . import weights_io
from .detection import (
    Backbone,
    Found,
    detect,
    sizes_text,
    stage_sizes,
    translate,
)
from .formats import (
    CONV_MLP,
    EXPORTS,
    FORMATS,
    LICENCES,
    Format,
    from_ours,
    rename,
)
from .weights_io import CheckpointError, read

__all__ = [
    'Account',
    'CheckpointError',
    'EXPORTS',
    'FORMATS',
    'Found',
    'convert',
    'detect',
    'export',
    'find_beside',
    'install_safe_loading',
    'load',
    'read',
]


@dataclasses.dataclass
class Account:
    """What happened to each key; ``print`` it for a short table.

    Args:
        found: what the checkpoint is.
        source: where it came from.
        loaded: our name to the key it was read from.
        dropped: key to the reason it has no place in the model.
        absent: our name to the reason the checkpoint may lack it.
        changed: our name to what was done beyond renaming.
        verb: what was done to the tensors in ``loaded``.
    """

    found: Found
    source: str = ''
    loaded: Dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: Dict[str, str] = dataclasses.field(default_factory=dict)
    absent: Dict[str, str] = dataclasses.field(default_factory=dict)
    changed: Dict[str, str] = dataclasses.field(default_factory=dict)
    verb: str = 'loaded'

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
        model: a ConvNeXt or ConvNeXtV2 backbone; it is only looked at.
        ema: take the averaged weights instead of the others.
        prefix: of the copy that is meant, where there are several.
        final_norm: start ``norm3`` from the classifier's last norm. Off,
            since that norm acts on pooled features of one stage: its scale
            does not suit a map, and the other stages have no such start.

    Returns:
        The tensors to load, in the model's types and on the checkpoint's
        device, and the account of every key on both sides.

    Raises:
        CheckpointError: for anything that is not accounted for. The output
            norms ``norm{i}`` may be absent, nothing else.
    """
    target = _target(model)
    found, tensors, keys, dropped, _ = translate(state_dict, ema, prefix)
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
            result[name] = _cast(keys[name], value, goal)
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
            f'{type(model).__name__} is no ConvNeXt backbone; pass the '
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
    return 'stage behind the last of out_indices, not built'


def _inflate(
    name: str, value: Tensor, goal: Tensor, account: Account
) -> Tensor:
    """Spread a 3-channel stem over other channels, sum preserved.

    Each channel is a copy of channel ``i % 3`` divided by the number of its
    copies, or below three the mean of all, as timm's ``adapt_input_conv``
    does up to the scale: equal channels give what they gave before.
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


def _cast(key: str, value: Tensor, goal: Tensor) -> Tensor:
    if value.shape != goal.shape:
        raise CheckpointError(
            f'{key} is {tuple(value.shape)}, the model has {tuple(goal.shape)}'
        )
    value = value.detach().to(goal.dtype)
    if not torch.isfinite(value).all():
        raise CheckpointError(f'{key} contains infinite or NaN values')
    return value


def load(
    model: nn.Module,
    source: Union[weights_io.Source, Mapping[str, Any]],
    ema: bool = False,
    prefix: Optional[str] = None,
    *,
    final_norm: bool = False,
    sha256: Optional[str] = None,
    map_location: Any = 'cpu',
) -> Account:
    """Load a checkpoint into a backbone, whole or not at all; log it.

    Args:
        model: a ConvNeXt or ConvNeXtV2 backbone.
        source: a state dict, or anything :func:`weights_io.read` takes.
        ema, prefix, final_norm: as for :func:`convert`.
        sha256, map_location: as for :func:`weights_io.read`.

    Raises:
        CheckpointError: with the model as it was.
    """
    state, name = source, ''
    if not isinstance(source, Mapping):
        name = os.fspath(source)
        state = weights_io.read(name, sha256, map_location)
    try:
        tensors, account = convert(state, model, ema, prefix, final_norm)
    except CheckpointError as error:
        raise CheckpointError(f'{name or "state dict"}: {error}') from error
    account.source = name
    goals = model.state_dict()
    with torch.no_grad():
        for key, value in tensors.items():
            goals[key].copy_(value)
    print_log(f'\n{account}', logger='current')
    return account


def find_beside(
    state_dict: Any,
    goals: Mapping[str, Tensor],
    ema: bool = False,
    prefix: Optional[str] = None,
) -> Dict[str, Tensor]:
    """Find what stands beside a backbone, such as the decoder of FCMAE.

    Args:
        state_dict: tensors by name, in any nesting of dicts.
        goals: the tensors to look for, named from where the backbone is
            ``backbone.`` or, in the authors' files, ``encoder.``.
        ema, prefix: as for :func:`convert`.

    Returns:
        The tensors in the shapes of ``goals``; empty where none is there.

    Raises:
        CheckpointError: for a part of them, or other sizes.
    """
    whole = translate(state_dict, ema, prefix)
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
        found[name] = _cast(parent + name, value, goals[name])
    return found


def _bare(shape: Sequence[int]) -> List[int]:
    return [size for size in shape if size != 1]


def licence_of(source: str, found: Found) -> str:
    """Name the licence that the source or the format tells of, if any."""
    name = source.rsplit('/', 1)[-1]
    texts = [text for what, text in LICENCES if re.search(what, name)]
    return (texts + [found.licence])[0] or 'not told by the format'


def export(
    model_or_state_dict: Union[nn.Module, Mapping[str, Any]],
    format: str,
    ema: bool = False,
    prefix: Optional[str] = None,
) -> Dict[str, Tensor]:
    """Name and shape a backbone as another library does.

    The output norms go where the format has a place for them: all in
    native, official, mmpretrain and transformers (its Backbone classes);
    in timm ``norm3`` becomes ``head.norm``.

    Args:
        model_or_state_dict: a backbone, a detector, or the state dict of
            one, in any format that :func:`detect` reads.
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
    state = source.state_dict() if isinstance(source, nn.Module) else source
    whole = translate(state, ema, prefix)
    if len(whole.found.depths) < 4 and format != 'native':
        raise CheckpointError(
            f'{format} needs all four stages, the backbone has '
            f'{len(whole.found.depths)}; build it with out_indices up to 3'
        )
    return _spell(whole, format)


def _spell(whole: Backbone, format: str) -> Tuple[Dict[str, Tensor], Account]:
    row = EXPORTS[format]
    account = Account(whole.found, dropped=dict(whole.dropped), verb='written')
    pairs, result = from_ours(row, whole.tensors), {}
    for name, tensor in whole.tensors.items():
        theirs, key = rename(name, pairs), whole.keys[name]
        if theirs is None:
            account.dropped[key] = f'{format} has no place for it'
            continue
        result[theirs] = _reshaped(name, tensor, row, whole.found)
        account.loaded[theirs] = key
    return result, account


def export_detector(
    state_dict: Mapping[str, Any], ema: bool = False
) -> Tuple[Dict[str, Tensor], Account]:
    """Rename the backbone of a whole detector or segmentor, keep the rest.

    For files of mmdet 2 and mmseg 0.x, such as the authors' of V1: necks
    and heads have the same names in mmdet 3 and mmseg 1.

    Raises:
        CheckpointError: where no backbone stands under ``backbone.``.
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


LOAD_OPTIONS = ('ema', 'prefix', 'final_norm', 'sha256', 'map_location')


class Initializer:
    """What ``init_cfg=dict(type='Pretrained', ...)`` means for a backbone.

    Takes the arguments of :func:`load`; mmengine calls it with the module.
    """

    def __init__(self, checkpoint: weights_io.Source, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - set(LOAD_OPTIONS))
        if unknown:
            raise CheckpointError(
                f'init_cfg of type Pretrained does not take {unknown}; it '
                f'takes checkpoint, {", ".join(LOAD_OPTIONS)}'
            )
        self.checkpoint, self.kwargs = checkpoint, kwargs

    def __call__(self, module: nn.Module) -> None:
        load(module, self.checkpoint, **self.kwargs)
        if hasattr(module, '_params_init_info'):
            info = f'Pretrained: load from {self.checkpoint}'
            update_init_info(module, init_info=info)


def resolve_init_cfg(init_cfg: Any) -> Any:
    """Replace mmengine's Pretrained, which forgives, by ours, put last.

    mmengine itself orders its own type only; what is read from a file has
    to overwrite what other entries fill in.
    """
    if not init_cfg:
        return init_cfg
    cfgs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg)
    names = ('Pretrained', PretrainedInit)
    others = [cfg for cfg in cfgs if cfg['type'] not in names]
    ours = [
        {**cfg, 'type': Initializer} for cfg in cfgs if cfg['type'] in names
    ]
    return others + ours


def _read_for_engine(filename: str, map_location: Any = None, **_: Any) -> Any:
    return weights_io.read(filename, map_location=map_location)


def _refuse_for_engine(filename: str, map_location: Any = None) -> Any:
    raise CheckpointError(
        f'{filename} is not read: fetch it and give its path, or use '
        f'{", ".join(weights_io.schemes())}'
    )


def install_safe_loading() -> None:
    """Let all that mmengine loads go through :func:`weights_io.read`.

    That is ``load_from``, resuming, the checkpoint of a test and every
    other module's ``init_cfg``. mmengine alone reads a pickle without
    restriction, or cannot resume its own files (0.10.7 with torch 2.6 or
    later). Schemes whose files would bypass the reader are refused. Call it
    once at the start of a program; calling it again changes nothing.
    """
    register = engine.CheckpointLoader.register_scheme
    ours = ['', 'http://', *weights_io.schemes()]
    register(ours, _read_for_engine, force=True)
    remote = ['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
    register(remote, _refuse_for_engine, force=True)
    # What torchvision://, open-mmlab:// and mmcls:// look up ends in these.
    engine.load_from_http = _read_for_engine
    engine._safe_torch_load = _read_for_engine
