"""What computes on each path: a row of :func:`kernels`, functions alone.

``autograd`` and ``library`` make ops with gradients of a row, in eager mode
and under ``torch.compile``.
"""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple, Optional, Tuple

from torch import Tensor

from . import depthwise, fused


def gives_moments(path: str, eps: Optional[float]) -> bool:
    """Whether the convolution brings moments of the layer norm along."""
    return path == 'triton' and eps is not None


class Kernels(NamedTuple):
    """Functions of one path; none knows autograd.

    Args:
        convolve: ``(x, weight, bias, eps)`` to the map and, where ``eps``
            is given, perhaps means and reciprocal deviations of its rows.
        convolve_backward: see :func:`depthwise.backward`.
        infer, forward, backward: see those of :mod:`.fused`.
    """

    convolve: Callable[..., Tuple[Tensor, Optional[Tensor]]]
    convolve_backward: Callable[..., Tuple[Optional[Tensor], ...]]
    infer: Callable[..., Tensor]
    forward: Callable[..., Tuple]
    backward: Callable[..., Tuple]


def _convolve(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], eps: Optional[float]
) -> Tuple[Tensor, None]:
    return depthwise.forward(x, weight, bias), None


@functools.cache
def kernels(path: str) -> Kernels:
    """Look a path up; Triton is imported when it first runs."""
    if path == 'triton':
        from . import triton_depthwise, triton_mlp

        return Kernels(
            triton_depthwise.convolve,
            triton_depthwise.convolve_backward,
            triton_mlp.infer,
            triton_mlp.forward,
            triton_mlp.backward,
        )
    assert path == 'fused', path
    return Kernels(
        _convolve,
        depthwise.backward,
        fused.infer,
        fused.forward,
        fused.backward,
    )
