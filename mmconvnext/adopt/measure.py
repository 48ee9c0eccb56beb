"""Measure a backbone: what it returns, and at which stride."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from .. import mmcv_ops
from ..archs import STRIDES
from ..configs import bare_type, walk
from .hosts import CLASSIFIERS
from .report import RefusedError

SIDE = 128


class Outputs(NamedTuple):
    """Channels and strides of a backbone's maps, in their order."""

    channels: Tuple[int, ...]
    strides: Tuple[int, ...]
    measured: bool = True


def measure(backbone: ConfigDict, scope: str) -> Optional[Outputs]:
    """Run a zero image through a backbone built without weights.

    Returns:
        None where its type is of a classification library that is not
        installed, or does not import.

    Raises:
        RefusedError: when its maps are no (N, C, H, W) tensors.
    """
    mmcv_ops.install()
    with DefaultScope.overwrite_default_scope(scope):
        if _is_missing(backbone.type):
            return None
        maps, side = _run(without_weights(backbone))
    if not isinstance(maps, (list, tuple)):
        maps = [maps]
    if not all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        raise RefusedError(
            f'{bare_type(backbone)} returns more than maps (class tokens, '
            f'nested lists), and the head reads that'
        )
    return Outputs(
        tuple(x.size(1) for x in maps),
        tuple(round(side / x.size(3)) for x in maps),
    )


def _is_missing(kind: Any) -> bool:
    """Whether a type is one of the classifiers' and they are not there."""
    if str(kind).partition('.')[0] not in CLASSIFIERS:
        return False
    try:
        with MODELS.switch_scope_and_registry(None) as registry:
            return registry.get(kind) is None
    except Exception:  # mmpretrain fails in many ways with newer libraries
        return True


def _run(cfg: ConfigDict) -> Tuple[Any, int]:
    """Run a small image, or one of the only size that a model takes.

    Shapes are all that counts, so the meta device comes first, where nothing
    is computed; models that read values as they are built fail there.
    """
    sides = [SIDE]
    fixed = cfg.get('img_size') or cfg.get('pretrain_img_size')
    if fixed:
        sides.append(max(fixed) if isinstance(fixed, Sequence) else fixed)
    tries = [(device, side) for device in ('meta', 'cpu') for side in sides]
    for device, side in tries[:-1]:
        try:
            return _maps(cfg, side, device), side
        except Exception:  # the last try raises
            continue
    device, side = tries[-1]
    return _maps(cfg, side, device), side


def _maps(cfg: ConfigDict, side: int, device: str) -> Any:
    shape = (1, cfg.get('in_channels', 3), side, side)
    with torch.device(device), torch.no_grad():
        module = MODELS.build(cfg)
        # In two lines: the hosts' ResNet returns None from train().
        module.eval()
        return module(torch.zeros(shape))


def without_weights(node: Any) -> Any:
    """Copy a part of a config, less everything that reads a file."""
    if isinstance(node, dict):
        copied = {
            key: without_weights(value)
            for key, value in node.items()
            if key not in ('pretrained', 'teacher_ckpt')
            and not (key == 'init_cfg' and reads_file(value))
        }
        return ConfigDict(copied)
    if isinstance(node, (list, tuple)):
        return type(node)(without_weights(value) for value in node)
    return copy.copy(node)


def reads_file(init_cfg: Any) -> bool:
    cfgs: Sequence = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    return any(
        isinstance(cfg, dict) and bare_type(cfg) == 'Pretrained'
        for cfg in cfgs
    )


def first_neck(model: ConfigDict) -> Optional[ConfigDict]:
    """Return the neck that reads the backbone, None without one."""
    neck = model.get('neck')
    return neck[0] if isinstance(neck, (list, tuple)) else neck


def assume(model: ConfigDict) -> Outputs:
    """Take the channels from what lists them, where none can be measured.

    That is the first neck, or without one the first head.

    Raises:
        RefusedError: when neither lists three or four.
    """
    channels = _listed(first_neck(model) or model)
    if len(channels) not in (3, 4):
        raise RefusedError(
            f'{model.backbone.type} is not installed, so that its channels '
            f'cannot be measured, and neither neck nor head lists them'
        )
    return Outputs(channels, STRIDES[-len(channels) :], measured=False)


def _listed(part: ConfigDict) -> Tuple[int, ...]:
    """Return the first list of ``in_channels`` in a part of the model."""
    for _, node in walk(part, ''):
        if isinstance(node.get('in_channels'), (list, tuple)):
            return tuple(node.in_channels)
    return ()
