"""Find the one ConvNeXt in a state dict and give its tensors our names.

Anchors find it, ``FORMATS`` renames its keys, and the list of all names and
shapes of a ConvNeXt of its size decides whether it is one.
"""

from __future__ import annotations

import dataclasses
import re
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor

from ..archs import arch_name
from .formats import (
    CLASSIFIER,
    FORMATS,
    LICENCES,
    NON_COMMERCIAL_V2,
    REFUSED,
    Format,
    Shape,
    rename,
    to_ours,
)
from .weights_io import CheckpointError

WRAPPED = re.compile(
    r'(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.'
)
EMA_PART = re.compile(r'(^|_)ema(_|$)')


@dataclasses.dataclass(frozen=True)
class Found:
    """What :func:`detect` says about a checkpoint.

    ``prefix`` includes the names of enclosing dicts, as in
    ``'state_dict.backbone.'``; ``arch`` is a name in ``ARCHS`` or 'custom';
    ``pretrain_only`` is true where neither a classifier nor the norms of a
    dense model are in the file. ``layer_scale`` is false for a V1 whose
    blocks have none, and has no meaning for V2.
    """

    format: str
    prefix: str
    version: int
    arch: str
    depths: Tuple[int, ...]
    dims: Tuple[int, ...]
    pretrain_only: bool
    licence: str = ''
    layer_scale: bool = True

    def __str__(self) -> str:
        kind = ', pre-training only' if self.pretrain_only else ''
        kind += '' if self.layer_scale else ', without layer scale'
        return (
            f'{self.format}, ConvNeXt V{self.version} '
            f'{sizes_text(self.depths, self.dims)}{kind}'
        )


def sizes_text(depths: Sequence[int], dims: Sequence[int]) -> str:
    numbers = [' '.join(map(str, row)) for row in (depths, dims)]
    name = arch_name(depths, dims)
    return f'{name} (depths {numbers[0]}, dims {numbers[1]})'


def some_of(keys: Sequence[str]) -> str:
    more = f' and {len(keys) - 5} more' if len(keys) > 5 else ''
    return ', '.join(keys[:5]) + more


def _flatten(state: Any) -> Dict[str, Tensor]:
    """Join nested dicts by dots; keep tensors, and each dict once."""
    flat: Dict[str, Tensor] = {}
    seen = set()
    stack = [('', state)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, Tensor):
            key = WRAPPED.sub('', path)
            if key in flat:
                raise CheckpointError(f'two tensors are called {key}')
            flat[key] = value
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            dot = path + '.' if path else ''
            items = [(f'{dot}{k}', v) for k, v in value.items()]
            stack.extend(reversed(items))
    return flat


def _is_ema(prefix: str, flat: Mapping[str, Tensor]) -> bool:
    # mmengine's EMAHook swaps the two when it saves: its state_dict holds
    # the average. A counter marks its files.
    if 'ema_state_dict.steps' in flat:
        return prefix.startswith('state_dict.')
    return any(EMA_PART.search(part) for part in prefix.split('.'))


def _is_under(asked: str, prefix: str) -> bool:
    if not asked:
        return not prefix
    return f'.{asked.rstrip(".")}.' in f'.{prefix}'


def _candidates(flat: Mapping[str, Tensor]) -> List[Tuple[str, str]]:
    found = []
    for name, row in FORMATS.items():
        for key in flat:
            prefix = key[: -len(row.anchor)]
            anchored = ('.' + key).endswith('.' + row.anchor)
            if anchored and prefix + row.proof in flat:
                found.append((name, prefix))
    return found


def _refuse_relatives(flat: Mapping[str, Tensor]) -> None:
    def seen(pattern: str) -> bool:
        regex = re.compile(rf'(.*\.)?{pattern}')
        return any(regex.fullmatch(key) for key in flat)

    for what, has, without in REFUSED:
        if all(map(seen, has)) and not any(map(seen, without)):
            raise CheckpointError(
                f'this is {what}, which our backbones do not compute'
            )


def _choose(
    flat: Mapping[str, Tensor], ema: bool, prefix: Optional[str]
) -> Tuple[str, str]:
    found = _candidates(flat)
    if not found:
        _refuse_relatives(flat)
        raise CheckpointError(_none_found(flat))
    kept = [c for c in found if _is_ema(c[1], flat) == ema]
    if prefix is not None:
        kept = [c for c in kept if _is_under(prefix, c[1])]
    if len(kept) == 1:
        return kept[0]
    seen = '; '.join(f'{name} at {p or "(no prefix)"!r}' for name, p in found)
    wanted = 'EMA weights' if ema else 'weights that are no EMA'
    under = f' under prefix={prefix!r}' if prefix is not None else ''
    raise CheckpointError(
        f'{len(kept)} copies of {wanted}{under}; the file has {seen}. '
        f'Choose one with prefix= or ema='
    )


def _none_found(flat: Mapping[str, Tensor]) -> str:
    anchors = [f'{k}: {v.anchor}' for k, v in FORMATS.items()]
    first = some_of(list(flat)) or '(no tensors)'
    return (
        f'no ConvNeXt found among {len(flat)} tensors. Looked for keys that '
        f'end in {"; ".join(anchors)}. First keys: {first}'
    )


class Backbone(NamedTuple):
    """A backbone under our names, the keys it came from, and the rest."""

    found: Found
    tensors: Dict[str, Tensor]
    keys: Dict[str, str]
    dropped: Dict[str, str]
    others: Dict[str, Tensor]


def _outside(
    key: str, prefix: str, row: Format, flat: Mapping[str, Tensor]
) -> Optional[str]:
    """Find the last norm of a format that has it beside the prefix."""
    parent = re.sub(r'[^.]*\.$', '', prefix)
    beside = row.norm_beside and parent + row.norm_beside in flat
    if not beside or not prefix or not key.startswith(parent):
        return None
    norm = row.names['norm.{p}']
    return rename(key[len(parent) :], [(norm, 'norm.{p}')])


def is_plain(names: Iterable[str]) -> bool:
    """Whether a backbone of ours has neither layer scale nor GRN."""
    return not any(re.search(r'\d\.(grn\.)?gamma$', name) for name in names)


def translate(
    state: Any,
    ema: bool = False,
    prefix: Optional[str] = None,
    plain: bool = False,
) -> Backbone:
    """Rename and reshape one backbone; every key under its prefix counts.

    Args:
        state, ema, prefix: as for :func:`detect`.
        plain: take blocks with neither layer scale nor GRN for V1 without
            layer scale. This has to be asked for, because the file may
            also be a V2 that lost its GRN.
    """
    flat = _flatten(state)
    name, start = _choose(flat, ema, prefix)
    _refuse_relatives({k: v for k, v in flat.items() if k.startswith(start)})
    row = FORMATS[name]
    tensors, keys, dropped, left = {}, {}, {}, []
    for key, tensor in flat.items():
        inside = key.startswith(start)
        rest = key[len(start) :]
        ours = (
            rename(rest, to_ours(row))
            if inside
            else _outside(key, start, row, flat)
        )
        reason = _drop_reason(rest, row) if inside else f'outside {start!r}'
        if ours and ours not in tensors:
            tensors[ours], keys[ours] = tensor, key
        elif ours or not reason:
            left.append(key)
        else:
            dropped[key] = reason
    rests = [k[len(start) :] for k in flat if k.startswith(start)]
    found = _describe(name, start, tensors, rests, plain)
    _check(found, tensors, keys, left)
    others = {key: flat[key] for key in dropped}
    return Backbone(found, tensors, keys, dropped, others)


def _drop_reason(rest: str, row: Format) -> str:
    reasons = [why for what, why in row.drops if re.fullmatch(what, rest)]
    return reasons[0] if reasons else ''


def _describe(
    name: str,
    prefix: str,
    tensors: Dict[str, Tensor],
    rests: Sequence[str],
    plain: bool,
) -> Found:
    depths, dims = stage_sizes(tensors)
    grn = any('.grn.' in key for key in tensors)
    scale = any(re.search(r'\d\.gamma$', key) for key in tensors)
    if grn and scale:
        raise CheckpointError(
            'blocks with both GRN and a layer scale are neither V1 nor V2'
        )
    if not (grn or scale or plain):
        raise CheckpointError(
            'blocks have neither a layer scale (V1) nor GRN (V2): a V2 file '
            'that lost its GRN, or V1 without layer scale, which loads only '
            'into ConvNeXt(layer_scale_init_value=0)'
        )
    version = 2 if grn else 1
    heads = any(_drop_reason(k, FORMATS[name]) == CLASSIFIER for k in rests)
    norms = any(re.match(r'norm\d?\.', key) for key in tensors)
    return Found(
        name,
        prefix,
        version,
        arch_name(depths, dims),
        depths,
        dims,
        not (FORMATS[name].trunk or norms or heads),
        _licence(name, version, rests),
        scale or version == 2,
    )


def _licence(name: str, version: int, keys: Sequence[str]) -> str:
    for pattern, text in LICENCES:
        if any(re.search(pattern, key) for key in keys):
            return text
    published = NON_COMMERCIAL_V2 if version == 2 else ''
    return FORMATS[name].licence or published


def stage_sizes(names: Mapping[str, Tensor]) -> Tuple[Shape, Shape]:
    """Count blocks and channels; biases give them even for a wrong kernel."""
    blocks: Dict[int, List[int]] = {}
    for key in names:
        match = re.match(r'stages\.(\d)\.(\d+)\.', key)
        if match:
            blocks.setdefault(int(match[1]), []).append(int(match[2]))
    lacking = [f'stages.{i}' for i in range(max(blocks)) if i not in blocks]
    for i, seen in blocks.items():
        # Compared by count: a forged index must not be counted up to.
        if len(set(seen)) != max(seen) + 1:
            lacking.append(f'blocks of stages.{i}')
    first = [f'stages.{i}.0.dwconv.bias' for i in sorted(blocks)]
    missing = [key for key in first if key not in names]
    if lacking or missing:
        raise CheckpointError(f'missing: {some_of(lacking + missing)}')
    depths = tuple(max(blocks[i]) + 1 for i in sorted(blocks))
    return depths, tuple(names[key].numel() for key in first)


def _shapes(found: Found, in_channels: int) -> Dict[str, Shape]:
    """List every tensor of a backbone but its norms, with its shape."""
    shapes: Dict[str, Shape] = {}

    def add(name: str, weight: Shape, size: int) -> None:
        shapes[f'{name}.weight'] = weight
        shapes[f'{name}.bias'] = (size,)

    before = in_channels
    for i, (depth, dim) in enumerate(zip(found.depths, found.dims)):
        conv, norm, k, size = (1, 0, 2, before) if i else (0, 1, 4, dim)
        add(f'downsample_layers.{i}.{conv}', (dim, before, k, k), dim)
        add(f'downsample_layers.{i}.{norm}', (size,), size)
        for j in range(depth):
            block = f'stages.{i}.{j}'
            add(f'{block}.dwconv', (dim, 1, 7, 7), dim)
            add(f'{block}.norm', (dim,), dim)
            add(f'{block}.pwconv1', (4 * dim, dim), 4 * dim)
            add(f'{block}.pwconv2', (dim, 4 * dim), dim)
            if found.version == 2:
                shapes[f'{block}.grn.gamma'] = (4 * dim,)
                shapes[f'{block}.grn.beta'] = (4 * dim,)
            elif found.layer_scale:
                shapes[f'{block}.gamma'] = (dim,)
        before = dim
    return shapes


def _norm_shapes(found: Found, names: Sequence[str]) -> Dict[str, Shape]:
    """List the norms in ``names``; half a norm counts as a whole one."""
    heads = {key.split('.')[0] for key in names if key.startswith('norm')}
    sizes = {f'norm{i}': dim for i, dim in enumerate(found.dims)}
    sizes['norm'] = found.dims[-1]
    return {
        f'{head}.{p}': (sizes.get(head, 0),)
        for head in sorted(heads)
        for p in ('weight', 'bias')
    }


def _check(
    found: Found,
    tensors: Dict[str, Tensor],
    keys: Mapping[str, str],
    left: Sequence[str],
) -> None:
    """Reshape in place; raise for a name or a shape that is not right."""
    stem = tensors.get('downsample_layers.0.0.weight')
    channels = stem.shape[1] if stem is not None and stem.dim() == 4 else 3
    shapes = _shapes(found, channels)
    shapes.update(_norm_shapes(found, list(tensors)))
    pairs = list(FORMATS[found.format].names.items())
    missing = [
        found.prefix + (rename(name, pairs) or name)
        for name in shapes
        if name not in tensors
    ]
    left = [*left, *(keys[name] for name in tensors if name not in shapes)]
    wrong = []
    for name in tensors.keys() & shapes.keys():
        read = _reader(name, tensors[name], shapes[name], found.format)
        if read is None:
            shape = tuple(tensors[name].shape)
            wrong.append(f'{keys[name]} {shape} for {shapes[name]}')
        else:
            tensors[name] = read(tensors[name], shapes[name])
    problems = {'missing': missing, 'left over': left, 'shape': wrong}
    texts = [f'{k}: {some_of(sorted(v))}' for k, v in problems.items() if v]
    if texts:
        raise CheckpointError(
            f'{found} is not a whole ConvNeXt. {"; ".join(texts)}'
        )


def _reader(
    name: str, tensor: Tensor, shape: Shape, form: str
) -> Optional[Callable[[Tensor, Shape], Tensor]]:
    dense = tensor.layout == torch.strided and not tensor.is_meta
    if not dense or not tensor.is_floating_point():
        return None
    if tensor.shape == shape:
        return lambda tensor, shape: tensor
    for row in FORMATS[form].reads:
        named = re.search(rf'{row.leaf}$', name)
        if named and tensor.shape == row.theirs(shape):
            return row.read
    return None


def detect(
    state_dict: Any, ema: bool = False, prefix: Optional[str] = None
) -> Found:
    """Identify a checkpoint and check every name and shape.

    Args:
        state_dict: tensors by name, in any nesting of dicts.
        ema: take the averaged weights instead of the others.
        prefix: of the wanted copy, where there are several.

    Raises:
        CheckpointError: unless exactly one whole ConvNeXt is in it.
    """
    return translate(state_dict, ema, prefix).found
