"""Decide which stage takes the place of which output of the old backbone."""

from __future__ import annotations

from typing import Iterator, Sequence, Tuple

from mmengine.config import Config, ConfigDict

from ..archs import STRIDES
from ..configs import bare_type, walk
from .draft import Site
from .measure import Outputs, assume, first_neck, measure
from .report import RefusedError
from .special import INNER, PLAIN, PLAIN_NECKS, STAGES

# Models of another kind inside of a tracker: their backbones stay.
OTHERS = ('reid',)


def find_sites(cfg: Config) -> Iterator[Site]:
    """Yield every backbone of the model, also of a tracker's detector."""
    yield from _find(cfg.get('model') or ConfigDict(), 'model')


def _find(node: ConfigDict, key: str) -> Iterator[Site]:
    for name, child in node.items():
        if not isinstance(child, dict) or name in OTHERS:
            continue
        if name == 'backbone' and 'type' in child:
            inner = INNER.get(bare_type(child))
            if inner:
                outer = f'{key}.backbone'
                yield Site(key, f'{outer}.{inner}', outer)
            else:
                yield Site(key, f'{key}.backbone')
        else:
            yield from _find(child, f'{key}.{name}')


def outputs_of(owner: ConfigDict, backbone: ConfigDict, scope: str) -> Outputs:
    """Measure a backbone, or read the neck where its library is missing."""
    return measure(backbone, scope) or assume(owner)


def choose_stages(
    owner: ConfigDict, backbone: ConfigDict, old: Outputs
) -> Tuple[Tuple[int, ...], int]:
    """Return the stage for each old output, and the output stride.

    By stride where the strides differ. Dilated ResNets and plain
    transformers repeat one; there the order counts, the deepest output is
    the last stage, and the new backbone keeps to the largest stride.

    Raises:
        RefusedError: for a stride that no stage has.
    """
    kind, neck = bare_type(backbone), first_neck(owner) or ConfigDict()
    for _, node in walk(owner, 'model'):
        if bare_type(node) in STAGES:
            return STAGES[bare_type(node)]
    if kind in PLAIN and bare_type(neck) in PLAIN_NECKS:
        return tuple(range(len(old.strides))), STRIDES[-1]
    if _is_flat(kind, backbone, old):
        return _by_order(kind, backbone, old)
    unknown = [s for s in old.strides if s not in STRIDES]
    if unknown or len(old.strides) > len(STRIDES):
        raise RefusedError(
            f'{kind} returns maps of stride '
            f'{", ".join(map(str, old.strides))}; ConvNeXt has '
            f'{", ".join(map(str, STRIDES))}, once each'
        )
    return tuple(STRIDES.index(s) for s in old.strides), STRIDES[-1]


def _is_flat(kind: str, backbone: ConfigDict, old: Outputs) -> bool:
    dilated = any(d != 1 for d in backbone.get('dilations') or ())
    repeats = len(set(old.strides)) < len(old.strides)
    return dilated or repeats or kind in PLAIN


def _by_order(
    kind: str, backbone: ConfigDict, old: Outputs
) -> Tuple[Tuple[int, ...], int]:
    count, stride = len(old.strides), max(old.strides)
    if stride not in STRIDES[1:] or count > len(STRIDES):
        raise RefusedError(
            f'{kind} returns {count} maps of stride '
            f'{", ".join(map(str, old.strides))}: no order of the four '
            f'stages fits'
        )
    named = backbone.get('out_indices')
    if kind not in PLAIN and _are_stages(named, count):
        return tuple(named), stride
    return tuple(range(len(STRIDES) - count, len(STRIDES))), stride


def _are_stages(indices: Sequence[int], count: int) -> bool:
    """Whether a ResNet's ``out_indices`` count stages as ours do."""
    return (
        isinstance(indices, (list, tuple))
        and len(indices) == count
        and all(0 <= i < len(STRIDES) for i in indices)
    )
