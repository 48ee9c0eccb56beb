"""Put a ConvNeXt into a config of MMDetection or MMSegmentation.

    >>> from mmconvnext.adopt import adopt, read
    >>> cfg = read('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    >>> cfg, report = adopt(cfg, arch='tiny', version=2, weights='fcmae')
    >>> print(report)

A host's config to ours: find and measure the old backbone (``measure``),
choose the stages (``plan``), rewrite what reads them (``channels``), designs
that need more (``special``), settings that belong to a backbone
(``settings``, by ``recipes``), then a short file (``write``) and a training
step (``check``).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from mmengine.config import Config, ConfigDict

from ..archs import STRIDES, arch_name, get_arch
from ..configs import bare_type
from ..registry import MODELS
from . import channels, settings, special
from .draft import Draft, Site
from .hosts import method_of, read
from .plan import choose_stages, find_sites, outputs_of
from .recipes import checkpoint_for, default_weights, recipe_for
from .report import Change, RefusedError, Report

__all__ = ['Change', 'RefusedError', 'Report', 'adopt', 'read']

Arch = Union[str, Mapping]
CLASSES = {1: 'mmconvnext.ConvNeXt', 2: 'mmconvnext.ConvNeXtV2'}


def adopt(
    cfg: Config,
    arch: Arch = 'tiny',
    version: int = 2,
    weights: Optional[str] = None,
) -> Tuple[Config, Report]:
    """Put a ConvNeXt in the place of the config's backbone.

    Args:
        cfg: of a model of MMDetection or MMSegmentation; stays as it is.
        arch: a name in ``ARCHS``, or ``dict(depths=..., dims=...)``.
        version: 1 or 2.
        weights: 'fcmae', '1k', '22k', 'dinov3', 'none', or a file or address
            that :func:`mmconvnext.checkpoint.load` takes. None chooses what
            the recipes start from, FCMAE for V2 detectors and else ImageNet,
            or 'none' for a size without published weights.

    Returns:
        The new config, and what was changed, left alone and why.

    Raises:
        RefusedError: for a design that cannot take another backbone.
        ValueError: for an unknown size, version or weights.
    """
    if version not in CLASSES:
        raise ValueError(f'version must be 1 or 2, got {version!r}')
    task = _task(cfg)
    row = get_arch(arch, version)
    weights = weights or default_weights(arch, version, task)
    init_cfg = checkpoint_for(weights, arch, version)
    draft = _plan(copy.deepcopy(cfg), row.dims, task)
    _title(draft, arch, version)
    recipe = recipe_for(arch, version, task)
    settings.replace_images(draft)
    special.drop_plain_neck(draft)
    if draft.site.outer is None:
        channels.rewrite(draft)
    for design in special.SPECIAL:
        if design.applies(draft):
            design.fit(draft)
    settings.replace_backbone(
        draft, _backbone(draft, arch, version, recipe.drop_path, init_cfg)
    )
    _try_file(draft.backbone)
    settings.remove_old_weights(draft)
    settings.replace_optimiser(draft, recipe, scratch=init_cfg is None)
    settings.say_what_to_look_at(draft, recipe.drop_path, init_cfg is None)
    return draft.cfg, draft.report


def _task(cfg: Config) -> str:
    """Return the host, which decides between the recipes of both tasks."""
    scope = cfg.get('default_scope')
    if 'model' not in cfg or scope not in ('mmdet', 'mmseg'):
        raise ValueError(
            f'{cfg.filename or "the config"} is no model of mmdet or mmseg: '
            f'default_scope is {scope!r}'
        )
    return scope


def _plan(cfg: Config, dims: Tuple[int, ...], task: str) -> Draft:
    special.refuse(cfg.model)
    sites = list(find_sites(cfg))
    if not sites:
        raise RefusedError(f'{bare_type(cfg.model)} has no backbone')
    site: Site = sites[0]
    found = Draft(cfg, site, None, dims)
    if len(sites) > 1:
        found.report.look.append(
            f'{", ".join(other.backbone for other in sites[1:])}: another '
            f'backbone, which stays'
        )
    found.old = outputs_of(found.owner, found.backbone, task)
    found.stages, found.output_stride = choose_stages(
        found.owner, found.backbone, found.old
    )
    if not found.old.measured:
        found.report.look.append(
            f'{found.backbone.type} is not installed: its channels are those '
            f'of the neck, its strides are taken to be '
            f'{", ".join(map(str, found.old.strides))}'
        )
    return found


def _title(draft: Draft, arch: Arch, version: int) -> None:
    draft.report.title = (
        f'{_method(draft.cfg)} with {_name(arch, version)} instead of '
        f'{settings.describe(draft.backbone)}.'
    )


def _method(cfg: Config) -> str:
    """Name the method: MMSegmentation's models are all EncoderDecoder."""
    head = cfg.model.get('decode_head')
    if not head:
        return bare_type(cfg.model)
    head = head[-1] if isinstance(head, list) else head
    named = method_of(Path(cfg.filename)) if cfg.filename else None
    return named or bare_type(head).replace('Head', '')


def _name(arch: Arch, version: int) -> str:
    row = get_arch(arch, version)
    return f'ConvNeXt V{version} {arch_name(row.depths, row.dims)}'


def _backbone(
    draft: Draft,
    arch: Arch,
    version: int,
    drop_path: float,
    init_cfg: Optional[Dict],
) -> Dict[str, Any]:
    new: Dict[str, Any] = dict(type=CLASSES[version], arch=arch)
    if draft.stages != tuple(range(len(STRIDES))):
        new['out_indices'] = draft.stages
    if draft.output_stride != STRIDES[-1]:
        new['output_stride'] = draft.output_stride
    if drop_path:
        new['drop_path_rate'] = drop_path
    if version == 1:
        new['layer_scale_init_value'] = 1.0
    if init_cfg:
        new['init_cfg'] = init_cfg
    return new


def _try_file(backbone: ConfigDict) -> None:
    """Load weights that are a file here: better now than when training."""
    source = (backbone.get('init_cfg') or {}).get('checkpoint')
    if source and Path(source).is_file():
        MODELS.build(backbone).init_weights()
