"""What an older torch cannot do, as reasons to skip."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F


@functools.cache
def cpu_computes_half() -> bool:
    """Whether float16 is computed on a CPU, which torch 2.1 refuses."""
    try:
        F.layer_norm(torch.ones(1, 4).half(), (4,))
    except RuntimeError:
        return False
    return True


@functools.cache
def cpu_autocasts_half() -> bool:
    """Whether autocast to float16 is there on a CPU, which came with 2.4."""
    try:
        with torch.autocast('cpu', torch.float16):
            x = torch.ones(1, 4)
            return F.linear(x, torch.ones(4, 4)).dtype == torch.float16
    except RuntimeError:
        return False


needs_half = pytest.mark.skipif(
    not cpu_computes_half(),
    reason=f'torch {torch.__version__} computes no float16 on a CPU',
)
needs_half_autocast = pytest.mark.skipif(
    not cpu_autocasts_half(),
    reason=f'torch {torch.__version__} has no autocast to float16 on a CPU',
)
