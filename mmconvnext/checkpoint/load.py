"""Load a checkpoint of any format into a backbone, whole or not at all."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional, Union

import torch
from mmengine.logging import print_log
from torch import nn

from . import weights_io
from .convert import Account, convert
from .sources import CheckpointError, Source


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
