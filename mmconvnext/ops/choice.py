"""Which path of an op runs, how to ask and how to force it.

:func:`decide` is the one place that chooses: the ops call it at each call,
and :func:`explain` calls it to print the choice. Rules of ``PLAIN`` and
``INPUTS`` come before a forced path: only the reference can be traced or
differentiated in every way. ``RULES`` holds what was measured; a path that
was measured nowhere on a device is not chosen there.
"""

from __future__ import annotations

import functools
import math
import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import (
    Any,
    Callable,
    Dict,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from torch import Tensor, nn

from . import autocast, onednn

OPS = ('depthwise_conv', 'convnext_mlp')
VARIABLE = 'MMCONVNEXT_OPS'
PLAIN_KINDS = (Tensor, nn.Parameter)
# Elements of a map, and multiply-adds of one of its products by four.
SMALL_MAP, SMALL_PRODUCT = 1 << 16, 1 << 24


def _find_is_compiling() -> Callable[[], bool]:
    found = getattr(torch.compiler, 'is_compiling', None)  # torch 2.3
    old = getattr(torch._utils, 'is_compiling', None)
    return found or old or (lambda: False)


is_compiling = _find_is_compiling()


class Path(NamedTuple):
    """What computes on a path besides the reference: a module for each op.

    None of them knows autograd.

    Args:
        depthwise_conv: has ``forward`` and ``backward``, see ``depthwise``.
        convnext_mlp: has ``infer``, ``forward`` and ``backward``, see
            ``fused``.
        absent: says why the path cannot run here, None where it can.
    """

    depthwise_conv: str
    convnext_mlp: str
    absent: Callable[[], Optional[str]]


OLDEST_TRITON = (3, 6)  # the oldest one that was run; torch 2.11 brings it


def _no_triton() -> Optional[str]:
    if find_spec('triton') is None:
        return 'the package triton is not installed: pip install triton'
    interprets = os.environ.get('TRITON_INTERPRET') == '1'
    if not (torch.cuda.is_available() or interprets):
        return 'there is no GPU; TRITON_INTERPRET=1 runs it slowly without'
    version = import_module('triton').__version__
    if tuple(map(int, version.split('.')[:2])) < OLDEST_TRITON:
        oldest = '.'.join(map(str, OLDEST_TRITON))
        return f'triton {version} is older than {oldest}'
    return None


KERNELS: Dict[str, Path] = {
    'fused': Path('depthwise', 'fused', lambda: None),
    'triton': Path('triton_depthwise', 'triton_mlp', _no_triton),
}
PATHS = ('auto', 'reference', *KERNELS)


@functools.cache
def kernels(path: str, op: str) -> ModuleType:
    """Import what computes an op on a path, when it first runs."""
    return import_module(f'.{getattr(KERNELS[path], op)}', __package__)


def absent(path: str) -> Optional[str]:
    """Say why a path cannot run here, None where it can."""
    return KERNELS[path].absent() if path in KERNELS else None


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


def forced() -> str:
    """Return the path that is forced now, ``'auto'`` for none."""
    return _forced


class use:  # noqa: N801 (reads like a function)
    """Force a path for the process, or choose with ``'auto'``.

    A call sets the path until the next one; as a context manager it restores
    the path that was set before.

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


class Call(NamedTuple):
    """What a choice depends on, besides the state of torch.

    Args:
        op: one of ``OPS``.
        device: type of device of the map.
        dtype: of the products: that of the map, or autocast's.
        shape: ``(N, H, W, C)`` of the map.
        training: whether a gradient is wanted.
        keep_grad: whether one of the drop path factors is.
        dilation: of the convolution.
        kind: the class of the tensors, a subclass if one of them is.
        compiling: whether ``torch.compile`` reads the call.
    """

    op: str
    device: str
    dtype: torch.dtype
    shape: Tuple[int, ...]
    training: bool
    keep_grad: bool = False
    dilation: int = 1
    kind: type = Tensor
    compiling: bool = False


class Choice(NamedTuple):
    path: str
    reason: str


def call_of(
    op: str,
    x: Tensor,
    others: Sequence[Optional[Tensor]],
    keep: Optional[Tensor] = None,
    dilation: int = 1,
) -> Call:
    """Describe a call with the map ``x``, other tensors and options."""
    tensors = [t for t in (x, *others) if t is not None]
    # Not ``type(t)``, which the compiler of torch 2.1 refuses.
    kinds = [t.__class__ for t in (*tensors, keep) if t is not None]
    special = [kind for kind in kinds if kind not in PLAIN_KINDS]
    grad = torch.is_grad_enabled()
    device = x.device.type
    return Call(
        op,
        device,
        autocast.product_dtype(device, x.dtype),
        x.shape,
        training=grad and any(t.requires_grad for t in tensors),
        keep_grad=grad and keep is not None and keep.requires_grad,
        dilation=dilation,
        kind=special[0] if special else Tensor,
        compiling=is_compiling(),
    )


# Private names of torch: there is no public way to ask. Where one is gone,
# the functions below find out another way.
TRANSFORMS = getattr(
    getattr(torch._C, '_functorch', None), 'peek_interpreter_stack', None
)
DISPATCH_MODES = getattr(torch._C, '_len_torch_dispatch_stack', None)


def _forward_level() -> Optional[int]:
    return getattr(torch.autograd.forward_ad, '_current_level', None)


class _Probe(torch.autograd.Function):
    """Raises an error in function transforms, as it has no vmap rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


def _raises(function: Callable, *args: object) -> bool:
    try:
        function(*args)
    except RuntimeError:
        return True
    return False


def _in_function_transform() -> bool:
    if TRANSFORMS is not None:
        return TRANSFORMS() is not None
    return _raises(_Probe.apply, torch.zeros(()))


def _in_forward_mode() -> bool:
    level = _forward_level()
    if level is not None:
        return level >= 0
    make_dual = torch.autograd.forward_ad.make_dual
    return not _raises(make_dual, torch.zeros(()), torch.zeros(()))


def _in_dispatch_mode() -> bool:
    # There is no other way. Where the name is gone, a mode sees the operators
    # of a path; FLOP counters and the like do not know all of them.
    return DISPATCH_MODES is not None and DISPATCH_MODES() > 0


# Only in eager mode.
PLAIN = (
    (torch.jit.is_tracing, 'tracing keeps plain operators'),
    (torch.onnx.is_in_onnx_export, 'ONNX export knows plain operators'),
    (_in_function_transform, 'torch.func transforms plain operators'),
    (_in_forward_mode, 'forward-mode derivatives need plain operators'),
    (_in_dispatch_mode, 'a dispatch mode looks at plain operators'),
)


# Compiled code can hold our operators, and knows export: torch 2.7.
HAS_CUSTOM_OPS = hasattr(torch.library, 'custom_op') and hasattr(
    torch.compiler, 'is_exporting'
)


def is_exporting() -> bool:
    """Whether ``torch.export`` reads a compiled call; never before 2.7."""
    # Compilers before that of torch 2.13 take the public function for true.
    flag = getattr(torch.compiler, '_is_exporting_flag', None)
    if flag is not None:
        return flag
    return getattr(torch.compiler, 'is_exporting', lambda: False)()


def plain_reason(compiling: bool) -> Optional[str]:
    """Say why torch wants plain operators here and now, None if it does not.

    Args:
        compiling: whether the call is for ``torch.compile``.
    """
    if compiling:
        if not HAS_CUSTOM_OPS:
            return 'torch before 2.7 compiles plain operators'
        if is_exporting():
            return 'torch.export keeps plain operators'
        return None
    for holds, reason in PLAIN:
        if holds():
            return reason
    return None


class Rule(NamedTuple):
    holds: Callable[[Call], bool]
    path: str
    reason: str


def _on_fast_cpu(call: Call) -> bool:
    return call.device == 'cpu' and call.dtype in onednn.ONEDNN_DTYPES


def _small(call: Call) -> bool:
    """Whether calls cost more than passes over maps.

    Measured in float32 and bfloat16, V1 and V2, with and without gradients,
    13 shapes from 4 x 4 x 320 to 200 x 336 x 40: below both limits plain
    PyTorch took 0.6 to 1.05 times as long as the fused path. Above either it
    took longer, but for V1's inference in bfloat16 (0.65 to 1.2).
    """
    if call.compiling:  # a limit would compile sizes on either side of it
        return False
    size = math.prod(call.shape)
    return size < SMALL_MAP and size * call.shape[-1] < SMALL_PRODUCT


# Elements of a map from which passes cost more than launches on a GPU.
LARGE_MAPS = {
    torch.float32: 1 << 22,
    torch.bfloat16: 1 << 24,
    torch.float16: 1 << 24,
}


@functools.cache
def _has_triton() -> bool:
    return _no_triton() is None


def _large_on_gpu(call: Call) -> bool:
    """Whether a map is so large that Triton's kernels pay in eager mode.

    Blocks of base at stride 4 of two images of 800 x 1344 in half precision
    took plain PyTorch 1.3 to 2.0 times as long in inference and 1.1 to 1.8
    times in training; those of stride 8 0.5 to 1.2 times, as Python launches
    them more slowly than they compute. In float32 it took 1.0 to 1.7 times
    as long down to stride 16. H200 with a slow host, torch 2.11, Triton 3.6,
    2026-11-28. Compiled code was not measured.
    """
    least = LARGE_MAPS.get(call.dtype)
    if call.device != 'cuda' or call.compiling or least is None:
        return False
    return math.prod(call.shape) >= least and _has_triton()


ON_GPU = Rule(
    _large_on_gpu, 'triton', 'measured: fewer passes over a large map'
)
# What no kernel can do, whatever is forced.
INPUTS = (
    Rule(
        lambda call: call.kind not in PLAIN_KINDS,
        'reference',
        'a subclass of Tensor may look at operators',
    ),
    Rule(
        lambda call: call.keep_grad,
        'reference',
        'only the reference differentiates drop path factors',
    ),
    Rule(
        lambda call: call.dilation > 1,
        'reference',
        'no other path dilates a convolution',
    ),
)
ELSEWHERE = Rule(
    lambda call: True, 'reference', 'nothing was measured to be faster here'
)
RULES = {
    'depthwise_conv': (
        Rule(
            lambda call: _on_fast_cpu(call) and call.training,
            'fused',
            'measured: oneDNN convolves forward faster than backward',
        ),
        ON_GPU,
        ELSEWHERE,
    ),
    'convnext_mlp': (
        Rule(
            lambda call: _on_fast_cpu(call) and not _small(call),
            'fused',
            "measured: oneDNN's products, fewer passes over maps",
        ),
        Rule(
            _on_fast_cpu,
            'reference',
            'measured: a small map costs calls, not passes',
        ),
        ON_GPU,
        ELSEWHERE,
    ),
}


def decide(call: Call) -> Choice:
    """Choose the path of a call: the first rule that holds."""
    reason = plain_reason(call.compiling)
    if reason is not None:
        return Choice('reference', reason)
    forced = Rule(
        lambda call: _forced != 'auto',
        _forced,
        f'forced, by ops.use or {VARIABLE}',
    )
    for rule in (*INPUTS, forced, *RULES[call.op]):
        if rule.holds(call):
            return Choice(rule.path, rule.reason)
    raise AssertionError(call)


def explain(
    shape: Sequence[int] = (1, 128, 128, 96),
    dtype: torch.dtype = torch.float32,
    device: Union[str, torch.device] = 'cpu',
    training: bool = True,
    dilation: int = 1,
    *,
    keep_grad: bool = False,
    kind: type = Tensor,
    compiling: bool = False,
) -> str:
    """Print, and return, which path each op would take here and now, and why.

    Here and now: a forced path, autocast and what else is on where it is
    called count.

    Args:
        shape: ``(N, H, W, C)`` of the map.
        dtype: of the map.
        device: of the map.
        training: whether gradients are wanted.
        dilation: of the depthwise convolution.
        keep_grad: whether one of the drop path factors is.
        kind: the class of the tensors.
        compiling: whether ``torch.compile`` reads the call.
    """
    device = torch.device(device).type
    products = autocast.product_dtype(device, dtype)
    mode = 'training' if training else 'inference'
    lines = [f'{tuple(shape)} {products} on {device}, {mode}']
    for op in OPS:
        call = Call(op, device, products, tuple(shape), training)
        call = call._replace(kind=kind, compiling=compiling)
        if op == 'convnext_mlp':
            call = call._replace(keep_grad=keep_grad)
        else:
            call = call._replace(dilation=dilation)
        choice = decide(call)
        lines.append(f'{op:15} {choice.path:10} {choice.reason}')
    for path in PATHS[1:]:
        lines.append(f'{path:10} {absent(path) or "can run here"}')
    text = '\n'.join(lines)
    print(text)
    return text
