"""What the published recipes set for a backbone, by size and task.

Detection: Mask R-CNN and Cascade Mask R-CNN on COCO; segmentation: UPerNet
on ADE20K (arXiv 2201.03545, tables 3 and 4 with the authors' code; arXiv
2301.00808, appendix A). Sizes without a published result have the values of
this project's own configs, and a test compares both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from ..archs import ARCHS, arch_name, get_arch


class Recipe(NamedTuple):
    """Settings of one recipe; ``batch`` is what ``lr`` is meant for."""

    name: str
    drop_path: float
    decay_rate: float
    decay_type: str
    lr: float
    batch: int


# version, task: name, decay rate and type, learning rate, batch size
COMMON: Dict[Tuple[int, str], Tuple[str, float, str, float, int]] = {
    (1, 'mmdet'): ('Mask R-CNN on COCO', 0.95, 'layer_wise', 1e-4, 16),
    (2, 'mmdet'): ('Mask R-CNN on COCO', 0.95, 'layer_wise', 1e-4, 32),
    (1, 'mmseg'): ('UPerNet on ADE20K', 0.9, 'stage_wise', 1e-4, 16),
    (2, 'mmseg'): ('UPerNet on ADE20K', 0.9, 'stage_wise', 1e-4, 16),
}
DROP_PATH: Dict[Tuple[int, str], Dict[str, float]] = {
    (1, 'mmdet'): dict(tiny=0.4, small=0.6, base=0.7, large=0.7, xlarge=0.8),
    (2, 'mmdet'): dict(
        atto=0.1,
        femto=0.0,
        pico=0.0,
        nano=0.1,
        tiny=0.2,
        base=0.4,
        large=0.5,
        huge=0.5,
    ),
    (1, 'mmseg'): dict(tiny=0.4, small=0.3, base=0.4, large=0.4, xlarge=0.4),
    (2, 'mmseg'): dict(
        atto=0.1,
        femto=0.1,
        pico=0.1,
        nano=0.1,
        tiny=0.2,
        base=0.4,
        large=0.4,
        huge=0.4,
    ),
}
_URL = 'https://dl.fbaipublicfiles.com/convnext/'
_V1 = ('tiny', 'small', 'base', 'large')
_V2 = tuple(
    name for name, row in ARCHS.items() if 2 in row.versions if name != 'small'
)
# version, name: sizes that were published, and where
WEIGHTS: Dict[Tuple[int, str], Tuple[Tuple[str, ...], str]] = {
    (1, '1k'): (_V1, _URL + 'convnext_{arch}_1k_224.pth'),
    (1, '22k'): ((*_V1, 'xlarge'), _URL + 'convnext_{arch}_22k_224.pth'),
    (1, 'dinov3'): (
        _V1,
        'checkpoints/convnext_{arch}.dinov3_lvd1689m/model.safetensors',
    ),
    (2, 'fcmae'): (
        _V2,
        _URL + 'convnextv2/pt_only/convnextv2_{arch}_1k_224_fcmae.pt',
    ),
    (2, '1k'): (_V2, _URL + 'convnextv2/im1k/convnextv2_{arch}_1k_224_ema.pt'),
    (2, '22k'): (
        ('nano', 'tiny', 'base', 'large', 'huge'),
        _URL + 'convnextv2/im22k/convnextv2_{arch}_22k_384_ema.pt',
    ),
}
NAMES = ('fcmae', '1k', '22k', 'dinov3', 'none')
Arch = Union[str, Mapping]


def nearest_arch(arch: Arch, version: int, task: str) -> str:
    """Name the size with a recipe that is nearest: itself, or by channels."""
    row = get_arch(arch, version)
    name = arch_name(row.depths, row.dims)
    known = DROP_PATH[version, task]
    if name in known:
        return name
    size = sum(d * w * w for d, w in zip(row.depths, row.dims))
    return min(known, key=lambda other: abs(_size(other) / size - 1))


def _size(name: str) -> float:
    row = ARCHS[name]
    return sum(d * w * w for d, w in zip(row.depths, row.dims))


def recipe_for(arch: Arch, version: int, task: str) -> Recipe:
    """Return the recipe of this size, or of the nearest that has one."""
    name = nearest_arch(arch, version, task)
    title, *values = COMMON[version, task]
    return Recipe(
        f'{title} with V{version} {name}',
        DROP_PATH[version, task][name],
        *values,
    )


def default_weights(arch: Arch, version: int, task: str) -> str:
    """Name what the recipes start from: FCMAE for V2 detectors, else 1k.

    Sizes without published weights give 'none'.
    """
    row = get_arch(arch, version)
    name = 'fcmae' if (version, task) == (2, 'mmdet') else '1k'
    sizes, _ = WEIGHTS[version, name]
    return name if arch_name(row.depths, row.dims) in sizes else 'none'


def checkpoint_for(
    weights: str, arch: Arch, version: int
) -> Optional[Dict[str, Any]]:
    """Return the ``init_cfg`` of a name in ``NAMES`` or of a file.

    Raises:
        ValueError: for a name without weights of this size and version, and
            for what is neither a name, a file nor an address.
    """
    if weights == 'none':
        return None
    if weights not in NAMES:
        if '://' not in weights and not Path(weights).is_file():
            raise ValueError(
                f'weights {weights!r} is neither a file nor one of '
                f'{", ".join(NAMES)}'
            )
        return dict(type='Pretrained', checkpoint=weights)
    row = get_arch(arch, version)
    name = arch_name(row.depths, row.dims)
    sizes, source = WEIGHTS.get((version, weights), ((), ''))
    if name not in sizes:
        raise ValueError(_unpublished(weights, name, version))
    return dict(type='Pretrained', checkpoint=source.format(arch=name))


def _unpublished(weights: str, name: str, version: int) -> str:
    there = [
        key
        for (number, key), (sizes, _) in WEIGHTS.items()
        if number == version and name in sizes
    ]
    return (
        f'there are no weights {weights!r} of ConvNeXt V{version} {name}; '
        f'choose {", ".join([*there, "none"])} or a file'
    )
