"""The published sizes of ConvNeXt: plain numbers, no model."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence, Tuple, Union


class Arch(NamedTuple):
    """Blocks and channels of the four stages, and who published it."""

    depths: Tuple[int, ...]
    dims: Tuple[int, ...]
    versions: Tuple[int, ...] = (1, 2)
    eps: float = 1e-6


ARCHS = {
    'atto': Arch((2, 2, 6, 2), (40, 80, 160, 320)),
    'femto': Arch((2, 2, 6, 2), (48, 96, 192, 384)),
    'pico': Arch((2, 2, 6, 2), (64, 128, 256, 512)),
    'nano': Arch((2, 2, 8, 2), (80, 160, 320, 640)),
    'tiny': Arch((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': Arch((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': Arch((3, 3, 27, 3), (128, 256, 512, 1024)),
    'large': Arch((3, 3, 27, 3), (192, 384, 768, 1536)),
    'xlarge': Arch((3, 3, 27, 3), (256, 512, 1024, 2048), (1,)),
    'huge': Arch((3, 3, 27, 3), (352, 704, 1408, 2816), (2,)),
    'xxlarge': Arch((3, 4, 30, 3), (384, 768, 1536, 3072), (1,), 1e-5),
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
