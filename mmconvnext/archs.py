"""The published sizes of ConvNeXt: plain numbers, no model."""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple, Union

# Versions that have a size, and how many parameters were published for it.
Params = Mapping[int, Optional[float]]


class Arch(NamedTuple):
    """One size of ConvNeXt.

    Args:
        depths: blocks of the four stages.
        dims: channels of the four stages.
        params: millions of parameters with a classifier of 1,000 classes,
            by version; None where nothing is published.
        eps: of the layer norms.
    """

    depths: Tuple[int, ...]
    dims: Tuple[int, ...]
    params: Params = MappingProxyType({1: None, 2: None})
    eps: float = 1e-6

    @property
    def versions(self) -> Tuple[int, ...]:
        return tuple(self.params)


# Parameters are those of timm's tables of results, which agree with the
# READMEs of both papers to the digits given there. V2 small is in use (timm
# registers it) but has no published results.
ARCHS = {
    'atto': Arch((2, 2, 6, 2), (40, 80, 160, 320), {1: 3.70, 2: 3.71}),
    'femto': Arch((2, 2, 6, 2), (48, 96, 192, 384), {1: 5.22, 2: 5.23}),
    'pico': Arch((2, 2, 6, 2), (64, 128, 256, 512), {1: 9.05, 2: 9.07}),
    'nano': Arch((2, 2, 8, 2), (80, 160, 320, 640), {1: 15.59, 2: 15.62}),
    'tiny': Arch((3, 3, 9, 3), (96, 192, 384, 768), {1: 28.59, 2: 28.64}),
    'small': Arch((3, 3, 27, 3), (96, 192, 384, 768), {1: 50.22, 2: None}),
    'base': Arch((3, 3, 27, 3), (128, 256, 512, 1024), {1: 88.59, 2: 88.72}),
    'large': Arch(
        (3, 3, 27, 3), (192, 384, 768, 1536), {1: 197.77, 2: 197.96}
    ),
    'xlarge': Arch((3, 3, 27, 3), (256, 512, 1024, 2048), {1: 350.20}),
    'huge': Arch((3, 3, 27, 3), (352, 704, 1408, 2816), {2: 660.29}),
    'xxlarge': Arch((3, 4, 30, 3), (384, 768, 1536, 3072), {1: 846.47}, 1e-5),
}
STRIDES = (4, 8, 16, 32)


def get_arch(arch: Union[str, Mapping], version: int) -> Arch:
    """Look up an arch by name, or read ``dict(depths=..., dims=...)``.

    Raises:
        ValueError: for an unknown name or a malformed dict.
    """
    if isinstance(arch, str):
        known = [k for k, row in ARCHS.items() if version in row.versions]
        if arch not in known:
            raise ValueError(
                f'arch {arch!r} is not a ConvNeXt V{version}; known: '
                f'{", ".join(known)}, or dict(depths=[...], dims=[...])'
            )
        return ARCHS[arch]
    if not isinstance(arch, Mapping) or set(arch) != {'depths', 'dims'}:
        raise ValueError(
            f'arch must be a name or dict(depths=[...], dims=[...]), '
            f'got {arch!r}'
        )
    rows = [tuple(arch[key]) for key in ('depths', 'dims')]
    for key, row in zip(('depths', 'dims'), rows):
        if len(row) != len(STRIDES) or any(
            not isinstance(n, int) or n < 1 for n in row
        ):
            raise ValueError(
                f'arch[{key!r}] must be {len(STRIDES)} positive integers, '
                f'got {arch[key]!r}'
            )
    return Arch(*rows)


def arch_name(depths: Sequence[int], dims: Sequence[int]) -> str:
    """Name the arch with these sizes; ``'custom'`` where none has them."""
    sizes = (tuple(depths), tuple(dims))
    for name, row in ARCHS.items():
        if (row.depths, row.dims) == sizes:
            return name
    return 'custom'
