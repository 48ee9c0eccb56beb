"""Autocast: its types, and how to keep it out.

The ops cast their inputs as autocast would cast those of the products, since
what runs inside of an ``autograd.Function`` should see final types.
"""

from __future__ import annotations

import functools
from typing import Callable

import torch
from torch import Tensor

HAS_DEVICE_ARGUMENT = hasattr(torch, 'get_autocast_dtype')  # torch 2.4


# Asked here: the compiler of torch before 2.13 refuses the question.
AVAILABLE = {
    device: torch.amp.is_autocast_available(device)
    for device in ('cpu', 'cuda', 'xpu', 'mps', 'meta')
    if HAS_DEVICE_ARGUMENT
}


def is_on(device: str) -> bool:
    """Whether autocast is on for a type of device; some never have it."""
    if HAS_DEVICE_ARGUMENT:
        available = AVAILABLE.get(device)
        if available is None:  # of a plug-in
            available = torch.amp.is_autocast_available(device)
        return available and torch.is_autocast_enabled(device)
    cpu, gpu = torch.is_autocast_cpu_enabled, torch.is_autocast_enabled
    return {'cpu': cpu, 'cuda': gpu}.get(device, bool)()


def dtype_of(device: str) -> torch.dtype:
    """Return the type that autocast gives to products on a device."""
    if HAS_DEVICE_ARGUMENT:
        return torch.get_autocast_dtype(device)
    cpu, gpu = torch.get_autocast_cpu_dtype, torch.get_autocast_gpu_dtype
    return cpu() if device == 'cpu' else gpu()


def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """Return the type of products of a map of ``dtype``, here and now."""
    # Autocast leaves float64 alone.
    if is_on(device) and dtype != torch.float64:
        return dtype_of(device)
    return dtype


def without_autocast(function: Callable) -> Callable:
    """Switch autocast off in a function that handles types by itself."""

    @functools.wraps(function)
    def run(x: Tensor, *args: object) -> object:
        if not is_on(x.device.type):
            return function(x, *args)
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args)

    return run
