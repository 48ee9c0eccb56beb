"""Paths of the ops of one block, and depthwise kernels."""

from __future__ import annotations

from argparse import Namespace
from typing import Callable, Dict, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmconvnext import ConvNeXtBlock, archs, ops

from .backbones import PRECISIONS
from .timing import Row, compare, rounds

# H, W and C of the four stages: tiny and base, at segmentation and detection
# sizes.
SHAPES = tuple(
    (height >> i, width >> i, dim)
    for height, width, arch in (
        (128, 128, 'tiny'),
        (200, 336, 'tiny'),
        (128, 128, 'base'),
        (200, 336, 'base'),
    )
    for i, dim in enumerate(archs.ARCHS[arch].dims)
)
DEPTHWISE_SHAPES = SHAPES[:8]


def op_rows(args: Namespace) -> Iterator[Row]:
    """A block on each path that can run here, at the shapes of ``arch``."""
    dtype = PRECISIONS[args.precision]
    paths = [p for p in ops.PATHS[1:] if ops.absent(p) is None]
    for i, dim in enumerate(archs.get_arch(args.arch, args.version).dims):
        scale = 1.0 if args.version == 1 else None
        block = ConvNeXtBlock(dim, 0.0, scale).to(args.device)
        height, width = (side // 4 >> i for side in args.size)
        x = torch.randn(args.batch, height, width, dim, device=args.device)
        x = x.permute(0, 3, 1, 2)
        autocast = torch.autocast(x.device.type, dtype, enabled=bool(dtype))

        def infer(path: str) -> None:
            with ops.use(path), torch.no_grad(), autocast:
                block(x)

        def train(path: str) -> None:
            with ops.use(path):
                with autocast:
                    y = block(x.requires_grad_())
                y.backward(torch.ones_like(y))

        for mode, run in (('inference', infer), ('training', train)):
            runs = {path: lambda p=path: run(p) for path in paths}
            for row in compare(rounds(runs, args.repeats), 'fused'):
                yield dict(
                    shape=f'{args.batch}x{height}x{width}x{dim}',
                    precision=args.precision,
                    mode=mode,
                    **row,
                )


def depthwise_rows(args: Namespace) -> Iterator[Row]:
    """The depthwise convolution and its gradients, PyTorch and Triton.

    In bfloat16 on a GPU, batch 2: microseconds of each, NHWC and NCHW. The
    weight's gradient is PyTorch's on every path.
    """
    if not torch.cuda.is_available():
        raise ValueError('depthwise measures kernels of a GPU; there is none')
    from mmconvnext.ops import triton_depthwise

    for height, width, dim in DEPTHWISE_SHAPES:
        x = torch.randn(2, height, width, dim, device='cuda').bfloat16()
        grad = torch.randn_like(x)
        weight = torch.randn(dim, 1, 7, 7, device='cuda').bfloat16()
        bias = torch.randn(dim, device='cuda').bfloat16()
        runs: Dict[str, Callable[[], object]] = {
            'forward triton': lambda: triton_depthwise.forward(
                x, weight, bias
            ),
            'input gradient triton': lambda: triton_depthwise.backward(
                grad, x, weight, (True, False, False)
            ),
        }
        for layout, contiguous in (('NHWC', False), ('NCHW', True)):
            runs.update(_native(layout, contiguous, x, grad, weight, bias))
        for name, times in rounds(runs, args.repeats).items():
            yield dict(
                shape=f'2x{height}x{width}x{dim}',
                kernel=name,
                us=round(1e3 * min(times), 1),
            )


def _native(
    layout: str,
    contiguous: bool,
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Dict[str, Callable[[], object]]:
    maps = [t.permute(0, 3, 1, 2) for t in (x, grad)]
    if contiguous:
        maps = [t.contiguous() for t in maps]

    def backward(mask: list) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            maps[1],
            maps[0],
            weight,
            [len(weight)],
            [1, 1],
            [3, 3],
            [1, 1],
            False,
            [0, 0],
            len(weight),
            mask,
        )

    return {
        f'forward {layout}': lambda: F.conv2d(
            maps[0], weight, bias, padding=3, groups=len(weight)
        ),
        f'input gradient {layout}': backward([True, False, False]),
        f'weight gradient {layout}': backward([False, True, False]),
    }
