"""Load a checkpoint of any format into a backbone, or build one from it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple, Union

import torch
from mmengine.logging import print_log
from torch import nn

from ..archs import ARCHS, STRIDES
from ..registry import MODELS
from . import weights_io
from .convert import Account, convert
from .detect import Found, translate
from .sources import CheckpointError, Source

TYPES = {1: 'mmconvnext.ConvNeXt', 2: 'mmconvnext.ConvNeXtV2'}


def load(
    model: nn.Module,
    source: Union[Source, Mapping[str, Any]],
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
    state, name = _read(source, sha256, map_location)
    return _fill(model, state, name, ema, prefix, final_norm)


def build(
    source: Union[Source, Mapping[str, Any]],
    ema: bool = False,
    prefix: Optional[str] = None,
    *,
    final_norm: bool = False,
    sha256: Optional[str] = None,
    map_location: Any = 'cpu',
    **backbone_options: Any,
) -> nn.Module:
    """Build the backbone that a checkpoint is of, with its weights.

    ``build('timm://convnextv2_tiny.fcmae', out_indices=(1, 2, 3))``

    Version and size are those of the file. Input channels and stages are as
    well, unless ``in_channels`` or ``out_indices`` ask for others.

    Args:
        source, ema, prefix, final_norm, sha256, map_location: as for
            :func:`load`.
        backbone_options: of ConvNeXt or ConvNeXtV2, but for ``arch``.

    Returns:
        A ConvNeXt or ConvNeXtV2 in evaluation mode.

    Raises:
        CheckpointError: for a source that is not a whole ConvNeXt or does
            not fit the options.
    """
    if 'arch' in backbone_options:
        raise CheckpointError('build takes no arch: the file decides it')
    state, name = _read(source, sha256, map_location)
    with _named(name):
        plain = backbone_options.get('layer_scale_init_value') == 0
        whole = translate(state, ema, prefix, plain)
    stem = whole.tensors['downsample_layers.0.0.weight']
    options = dict(
        in_channels=stem.shape[1],
        out_indices=tuple(range(len(whole.found.depths))),
    )
    model = MODELS.build({**options, **backbone_options, **_kind(whole.found)})
    _fill(model, state, name, ema, prefix, final_norm)
    return model.eval()


def _read(
    source: Union[Source, Mapping[str, Any]],
    sha256: Optional[str],
    map_location: Any,
) -> Tuple[Any, str]:
    """Return what a source holds and its name, '' for a state dict."""
    if isinstance(source, Mapping):
        return source, ''
    name = os.fspath(source)
    return weights_io.read(name, sha256, map_location), name


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of the source before a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{name or "state dict"}: {error}') from error


def _fill(
    model: nn.Module,
    state: Any,
    name: str,
    ema: bool,
    prefix: Optional[str],
    final_norm: bool,
) -> Account:
    """Copy the tensors of a checkpoint into a backbone; log the account."""
    with _named(name):
        tensors, account = convert(state, model, ema, prefix, final_norm)
    account.source = name
    goals = model.state_dict()
    with torch.no_grad():
        for key, value in tensors.items():
            goals[key].copy_(value)
    print_log(f'\n{account}', logger='current')
    return account


def _kind(found: Found) -> Dict[str, Any]:
    """Say type and arch of a backbone as a config does."""
    arch: Any = found.arch
    if arch not in ARCHS or found.version not in ARCHS[arch].versions:
        # Stages missing from the file are not built but need a size.
        lacking = [1] * (len(STRIDES) - len(found.depths))
        arch = dict(
            depths=[*found.depths, *lacking], dims=[*found.dims, *lacking]
        )
    return dict(type=TYPES[found.version], arch=arch)
