"""Which implementation of an op runs, how to ask and how to force it.

The first rule that holds decides. Rules of ``PLAIN`` come before a forced
path: nothing but the reference can be traced or differentiated in every
way. Those of ``RULES`` were filled by measurement, and what was not
measured says so.
"""

from __future__ import annotations

import functools
import math
import os
from importlib.util import find_spec
from typing import Callable, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from . import gemm

PATHS = ('auto', 'reference', 'fused', 'triton')
OPS = ('depthwise_conv', 'convnext_mlp')
VARIABLE = 'MMCONVNEXT_OPS'
# Elements of a map, and multiply-adds of one of its products by four.
SMALL_MAP, SMALL_PRODUCT = 1 << 16, 1 << 24

if hasattr(torch.compiler, 'is_compiling'):  # torch 2.3
    is_compiling = torch.compiler.is_compiling
else:

    def is_compiling() -> bool:
        return torch._dynamo.is_compiling()


class Call(NamedTuple):
    """What a choice depends on; ``shape`` is ``(N, H, W, C)``."""

    op: str
    device: str
    dtype: torch.dtype
    shape: Tuple[int, ...]
    training: bool
    dilation: int = 1


class Choice(NamedTuple):
    path: str
    reason: str


class Rule(NamedTuple):
    holds: Callable[[Call], bool]
    path: str
    reason: str


def _in_function_transform() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def _in_forward_mode() -> bool:
    return torch.autograd.forward_ad._current_level >= 0


def _in_dispatch_mode() -> bool:
    return torch._C._len_torch_dispatch_stack() > 0


# Looked at in eager mode only.
PLAIN = (
    (torch.jit.is_tracing, 'tracing keeps plain operators'),
    (torch.onnx.is_in_onnx_export, 'ONNX export knows plain operators'),
    (_in_function_transform, 'torch.func transforms plain operators'),
    (_in_forward_mode, 'forward-mode derivatives need plain operators'),
    (_in_dispatch_mode, 'a dispatch mode looks at plain operators'),
)


def has_custom_ops() -> bool:
    """Whether torch can compile, and tell export apart (2.7 or newer)."""
    return hasattr(torch.library, 'custom_op') and hasattr(
        torch.compiler, 'is_exporting'
    )


HAS_CUSTOM_OPS = has_custom_ops()


def _on_fast_cpu(call: Call) -> bool:
    return call.device == 'cpu' and call.dtype in gemm.ONEDNN_DTYPES


def _fast_depthwise(call: Call) -> bool:
    return _on_fast_cpu(call) and call.training


def _small(call: Call) -> bool:
    """Whether calls cost more than passes over maps.

    Measured in float32 and bfloat16, V1 and V2, with and without gradients,
    13 shapes from 4 x 4 x 320 to 200 x 336 x 40: below both limits plain
    PyTorch took 0.6 to 1.05 times as long as the fused path. Above either it
    took longer, but for V1's inference in bfloat16 (0.65 to 1.2).
    """
    if is_compiling():  # a limit would compile sizes on either side of it
        return False
    size = math.prod(call.shape)
    return size < SMALL_MAP and size * call.shape[-1] < SMALL_PRODUCT


def _fast_mlp(call: Call) -> bool:
    return _on_fast_cpu(call) and not _small(call)


RULES = {
    'depthwise_conv': (
        Rule(
            _fast_depthwise,
            'fused',
            'measured: oneDNN convolves forward faster than backward',
        ),
        Rule(lambda call: True, 'reference', 'nothing measured is faster'),
    ),
    'convnext_mlp': (
        Rule(
            _fast_mlp,
            'fused',
            "measured: oneDNN's products, fewer passes over maps",
        ),
        Rule(
            lambda call: call.device == 'cuda' and call.dtype.itemsize < 8,
            'fused',
            'unmeasured: fewer passes over maps by the traffic model',
        ),
        Rule(
            _on_fast_cpu,
            'reference',
            'measured: a small map costs calls, not passes',
        ),
        Rule(lambda call: True, 'reference', 'nothing else was measured'),
    ),
}


@functools.cache
def absent(path: str) -> Optional[str]:
    """Why a path cannot run here, None where it can."""
    if path != 'triton':
        return None
    if find_spec('triton') is None:
        return 'the package triton is not installed: pip install triton'
    if torch.cuda.is_available() or os.environ.get('TRITON_INTERPRET') == '1':
        return None
    return 'there is no GPU; TRITON_INTERPRET=1 runs it slowly without'


def check(path: str) -> str:
    """Return ``path`` if it is known and can run.

    Raises:
        ValueError: for an unknown one.
        RuntimeError: for one that cannot run here.
    """
    if path not in PATHS:
        raise ValueError(f'path must be one of {PATHS}, got {path!r}')
    reason = absent(path)
    if reason is not None:
        raise RuntimeError(f'ops path {path!r} is absent: {reason}')
    return path


# One value for the process: a backward pass may run on another thread, and
# activation checkpointing computes a forward pass there.
_forced = check(os.environ.get(VARIABLE, 'auto'))


class use:  # noqa: N801 (reads like a function)
    """Force a path for the process, or choose with ``'auto'``.

    As a function it stays; as a context manager the path before it returns.

        ops.use('reference')
        with ops.use('fused'):
            ...

    Args:
        path: one of ``PATHS``.

    Raises:
        ValueError: for an unknown path.
        RuntimeError: for one that cannot run here.
    """

    def __init__(self, path: str) -> None:
        global _forced
        self.before = _forced
        _forced = check(path)

    def __enter__(self) -> use:
        return self

    def __exit__(self, *error: object) -> None:
        global _forced
        _forced = self.before


def _plain_reason() -> Optional[str]:
    if is_compiling():
        if not HAS_CUSTOM_OPS:
            return 'torch before 2.7 compiles plain operators'
        if torch.compiler.is_exporting():
            return 'torch.export keeps plain operators'
        return None
    for holds, reason in PLAIN:
        if holds():
            return reason
    return None


def decide(call: Call) -> Choice:
    """Choose a path for a call."""
    reason = _plain_reason()
    if reason is not None:
        return Choice('reference', reason)
    if call.dilation > 1:
        return Choice('reference', 'no other path dilates a convolution')
    if _forced != 'auto':
        return Choice(_forced, f'forced, by ops.use or {VARIABLE}')
    for rule in RULES[call.op]:
        if rule.holds(call):
            return Choice(rule.path, rule.reason)
    raise AssertionError(call)


def path_of(
    op: str,
    x: Tensor,
    tensors: Sequence[Optional[Tensor]],
    dilation: int = 1,
) -> str:
    """Choose a path for a call with these tensors, ``x`` first of all."""
    if not is_compiling() and type(x) not in (Tensor, nn.Parameter):
        return 'reference'
    training = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )
    dtype = compute_dtype(x)
    call = Call(op, x.device.type, dtype, x.shape, training, dilation)
    return decide(call).path


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type of products: that of ``x``, or autocast's."""
    device = x.device.type
    if gemm.autocasts(device) and x.dtype != torch.float64:
        return autocast_dtype(device)
    return x.dtype


def autocast_dtype(device: str) -> torch.dtype:
    if gemm.NEW_AUTOCAST:
        return torch.get_autocast_dtype(device)
    cpu, gpu = torch.get_autocast_cpu_dtype, torch.get_autocast_gpu_dtype
    return cpu() if device == 'cpu' else gpu()


def explain(
    shape: Sequence[int] = (1, 128, 128, 96),
    dtype: torch.dtype = torch.float32,
    device: Union[str, torch.device] = 'cpu',
    training: bool = True,
    dilation: int = 1,
) -> str:
    """Print, and return, which path each op would take here and now, and why.

    Args:
        shape: ``(N, H, W, C)`` of the map.
        dtype: of the products: autocast's, under autocast.
        device: where the map lies.
        training: whether gradients are asked for.
        dilation: of the depthwise convolution.
    """
    kind = torch.device(device).type
    mode = 'training' if training else 'inference'
    lines = [f'{tuple(shape)} {dtype} on {kind}, {mode}']
    for op in OPS:
        wide = dilation if op == 'depthwise_conv' else 1
        choice = decide(Call(op, kind, dtype, tuple(shape), training, wide))
        lines.append(f'{op:15} {choice.path:10} {choice.reason}')
    for path in PATHS[1:]:
        lines.append(f'{path:10} {absent(path) or "can run here"}')
    text = '\n'.join(lines)
    print(text)
    return text
