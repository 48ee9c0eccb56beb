"""CUDA graphs of a backbone's inference: one launch instead of hundreds.

Where kernels are short, a forward pass takes as long as Python needs to
launch them. A graph is recorded once per kind of input and replayed with one
launch. Its kernels have fixed addresses: an input is copied to where the
graph reads, results are copied from where it writes.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Hashable,
    Iterator,
    NamedTuple,
    Optional,
    Tuple,
    Type,
)

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..ops import autocast, choice

LIMIT = 8
# An input of a kind that was evicted k times runs 4^k times before its next
# recording, which costs some five passes: with more kinds than graphs, each
# recording would otherwise make way for the next.
PATIENCE = 4
# The last one must compile nothing; torch.cuda.make_graphed_callables too
# takes three.
WARM_UPS = 3

Maps = Tuple[Tensor, ...]
Function = Callable[[Tensor], Maps]


class Graph(NamedTuple):
    """A recorded pass: reads ``x``, writes ``outputs``."""

    x: Tensor
    outputs: Maps
    replay: Callable[[], None]


def _is_in_training(module: nn.Module, x: Tensor) -> bool:
    return any(part.training for part in module.modules())


def _has_global_hooks() -> bool:
    """Whether hooks for calls of all modules are registered.

    torch has no public word for it, and a function for it only since 2.2:
    its tables ``_global_forward_hooks``, ``_global_backward_pre_hooks`` ...
    are read by the pattern of their names. Those of registrations, such as
    ``_global_parameter_registration_hooks``, have nothing to do with calls.
    """
    return any(
        bool(table)
        for name, table in vars(torch_module).items()
        if name.startswith(('_global_forward', '_global_backward'))
    )


def _hooks_of(part: nn.Module) -> bool:
    # Where torch keeps them elsewhere, none is missed: graphs do not run.
    return any(
        getattr(part, name, True)
        for name in ('_forward_hooks', '_forward_pre_hooks')
    )


def _has_hooks(module: nn.Module, x: Tensor) -> bool:
    # The hooks of ``module`` itself run outside of its forward pass.
    return _has_global_hooks() or any(
        part is not module and _hooks_of(part) for part in module.modules()
    )


def _is_capturing(module: nn.Module, x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _wants_plain_operators(module: nn.Module, x: Tensor) -> bool:
    return choice.plain_reason(compiling=False) is not None


# The first must be first: it is what a compiler evaluates.
AS_USUAL = (
    (lambda module, x: choice.is_compiling(), 'it is being compiled'),
    (lambda module, x: torch.is_grad_enabled(), 'gradients are enabled'),
    (_is_in_training, 'a module is in training mode'),
    (lambda module, x: type(x) is not Tensor, 'x is of a subclass of Tensor'),
    (_wants_plain_operators, 'operators are traced or transformed'),
    (_is_capturing, 'another graph is being recorded'),
    (_has_hooks, 'hooks in the module want to be called'),
)


def why_not(module: nn.Module, x: Tensor) -> Optional[str]:
    """Why a call is not one that graphs are for, None for inference."""
    for holds, reason in AS_USUAL:
        if holds(module, x):
            return reason
    return None


def _tf32(backend: Any) -> bool:
    # torch 2.9 has new names, and refuses the old after a use of the new.
    try:
        return backend.fp32_precision == 'tf32'
    except (AttributeError, AssertionError):  # the latter in torch 2.1
        return backend.allow_tf32


def _convolutions() -> object:
    return getattr(torch.backends.cudnn, 'conv', torch.backends.cudnn)


# What decides on kernels besides the input; a graph would not notice.
SETTINGS = (
    lambda device: autocast.is_on(device),
    lambda device: autocast.dtype_of(device),
    lambda device: choice.forced(),
    lambda device: _tf32(torch.backends.cuda.matmul),
    lambda device: _tf32(_convolutions()),
    lambda device: torch.are_deterministic_algorithms_enabled(),
)


def kind_of(x: Tensor) -> Tuple:
    """All that a graph for ``x`` fixes, but for weights and module."""
    settings = tuple(read(x.device.type) for read in SETTINGS)
    return (x.shape, x.stride(), x.dtype, x.device, *settings)


def layout(module: nn.Module) -> Tuple:
    """Address and layout of each weight in memory.

    New values at the same place leave it as it is. Reading it, with a look
    at every module for :func:`why_not`, takes about 0.3 ms at each call for
    the 384 parameters of V2 base.
    """
    return tuple(
        # A slice or another memory format may begin at the same address.
        (p.data_ptr(), p.dtype, p.shape, p.stride())
        for p in module.parameters()
    )


class CudaRecorder:
    """Record functions on one GPU.

    All graphs share a pool of memory, which grows to what the largest needs.
    PyTorch allows that where no graph reads what another wrote and no two
    replay at once (pytorch/pytorch#166975): inputs lie outside of the pool,
    outputs are cloned before the turn of the next.
    """

    kind = 'cuda'

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream()
            self.done = torch.cuda.Event()
        self.clear()

    def clear(self) -> None:
        """Let go of the memory of graphs.

        The stream stays: cuBLAS never frees the workspace of a stream.
        """
        self.pool = torch.cuda.graph_pool_handle()

    def record(
        self, function: Function, x: Tensor
    ) -> Tuple[Maps, Callable[[], None]]:
        """Return the outputs, to be filled by the second: a replay."""
        with torch.cuda.device(self.device):
            self._warm_up(function, x)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph,
                pool=self.pool,
                stream=self.stream,
                # A thread that pins the memory of batches may go on.
                capture_error_mode='thread_local',
            ):
                outputs = function(x)
        return outputs, graph.replay

    def _warm_up(self, function: Function, x: Tensor) -> None:
        # Compilers, algorithm searches and the workspaces of cuBLAS, one per
        # stream, are for before the recording and outside of its memory.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                function(x)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn before, on whatever stream that was."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self.done)
        yield
        self.done.record(stream)


class GraphCache:
    """The graphs of one module, per kind of input, the last few used.

    The first input of a kind runs as usual, since in multi-scale tests most
    are seen once; the second is recorded, later ones are replayed. An
    evicted graph leaves its memory to the next ones; that of all returns to
    PyTorch with :meth:`clear`. A copy, or what is unpickled, starts empty.

    Args:
        recorder: made for a device when first needed.
        limit: number of graphs kept.
    """

    def __init__(
        self,
        recorder: Type[CudaRecorder] = CudaRecorder,
        limit: int = LIMIT,
    ) -> None:
        self._make, self._limit = recorder, limit
        self._lock = threading.Lock()
        self._recorder: Optional[CudaRecorder] = None
        self.clear()

    def __reduce__(self) -> Tuple:
        return type(self), (self._make, self._limit)

    def __len__(self) -> int:
        return len(self._graphs)

    def clear(self) -> None:
        """Drop all graphs and their pool of memory."""
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self._eager: Counter = Counter()
        self._evicted: Counter = Counter()
        if self._recorder is not None:
            self._recorder.clear()
        self._layout: Optional[Tuple] = None

    def __call__(
        self,
        module: nn.Module,
        function: Function,
        x: Tensor,
        options: Hashable = (),
    ) -> Maps:
        """Compute ``function(x)``, by a replay where there is a graph.

        Args:
            module: whose weights the function uses.
            function: of tensors on the GPU only, without a look at values.
            x: any shape.
            options: what else the function depends on.

        Raises:
            RuntimeError: for a device that has no graphs, and a replica of
                ``nn.DataParallel``.
        """
        self._check(module, x)
        with self._lock:
            graph = self._find(module, function, x, (kind_of(x), options))
            if graph is None:
                return function(x)
            assert self._recorder is not None  # it made the graph
            with self._recorder.turn():
                graph.x.copy_(x)
                graph.replay()
                # The next replay writes to the same memory.
                return tuple(out.clone() for out in graph.outputs)

    def _check(self, module: nn.Module, x: Tensor) -> None:
        if x.device.type != self._make.kind:
            raise RuntimeError(
                f'cuda_graphs=True needs inputs on {self._make.kind} in '
                f'inference, got one on {x.device}: move the model and its '
                'inputs there or set cuda_graphs=False'
            )
        if getattr(module, '_is_replica', False):
            raise RuntimeError(
                'cuda_graphs=True does not go with nn.DataParallel, which '
                'copies weights at each call: use one process per GPU or set '
                'cuda_graphs=False'
            )

    def _find(
        self, module: nn.Module, function: Function, x: Tensor, key: Hashable
    ) -> Optional[Graph]:
        """Find a graph or record it, None where it is too early for that."""
        now = layout(module)
        if now != self._layout:
            # Graphs would read where weights no longer are.
            self.clear()
            self._layout = now
        if key not in self._graphs:
            if self._eager[key] < PATIENCE ** self._evicted[key]:
                self._eager[key] += 1
                return None
            self._graphs[key] = self._record(function, x)
            self._evict()
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _record(self, function: Function, x: Tensor) -> Graph:
        if self._recorder is None or self._recorder.device != x.device:
            self._recorder = self._make(x.device)
        # Autocast keeps casted weights until its outermost block ends. A
        # graph that began with them would read freed memory later, and would
        # not see new weights: without that cache it casts at each replay.
        device = x.device.type
        uncached = torch.autocast(
            device,
            dtype=autocast.dtype_of(device),
            enabled=autocast.is_on(device),
            cache_enabled=False,
        )
        # What is made in inference mode cannot be written outside of it.
        with torch.inference_mode(False), torch.no_grad(), uncached:
            fixed = x.clone()
            return Graph(fixed, *self._recorder.record(function, fixed))

    def _evict(self) -> None:
        while len(self._graphs) > self._limit:
            key, _ = self._graphs.popitem(last=False)
            self._eager[key] = 0
            self._evicted[key] += 1
