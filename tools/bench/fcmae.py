"""FCMAE's training step: visible patches against masked dense maps."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Callable, Iterator, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmconvnext import FCMAE, ConvNeXtBlock, ops
from mmconvnext.models.layers import to_nchw, to_nhwc
from mmconvnext.pretrain.fcmae import to_patches

from .backbones import PRECISIONS, bytes_kept
from .timing import Row, pair, peak_mib

PATHS = ('reference', 'auto')


class MaskedDense(nn.Module):
    """The step of an FCMAE on dense maps times the mask.

    The way of the authors' JAX code and of every port without a sparse
    library, from the same operators and parameters.
    """

    def __init__(self, model: FCMAE) -> None:
        super().__init__()
        self.model = model

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        backbone, x = self.model.backbone, images
        for down, stage in zip(backbone.downsample_layers, backbone.stages):
            x = down(x)
            times = x.size(2) // mask.size(1)
            seen = (~mask).repeat_interleave(times, 1)
            seen = seen.repeat_interleave(times, 2)[..., None].to(x.dtype)
            x = x * to_nchw(seen)
            for block in stage:
                x = self.block(block, x, seen)
        return backbone.norm3(x)

    def block(self, block: ConvNeXtBlock, x: Tensor, seen: Tensor) -> Tensor:
        norm = (block.norm.weight, block.norm.bias)
        y = ops.layer_norm(to_nhwc(block.dwconv(x)), norm, block.norm.eps)
        y = F.gelu(block.pwconv1(y))
        y = block.pwconv2(ops.grn(y * seen, block.grn.affine))
        return to_nchw((to_nhwc(x) + y) * seen)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        model = self.model
        x = model.proj(self.encode(images, mask))
        x = torch.where(mask[:, None], model.mask_token.to(x.dtype), x)
        pred = to_nhwc(model.pred(model.decoder(x)))
        target = to_patches(images)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
        loss = (pred - target).pow(2).mean(-1)
        return (loss * mask).sum() / mask.sum()


class Case:
    """A model, a batch, a mask, and both ways to take a step.

    Raises:
        ValueError: where the two do not compute the same gradients.
    """

    def __init__(self, args: Namespace, arch: str) -> None:
        self.device, self.dtype = args.device, PRECISIONS[args.precision]
        backbone = dict(type='mmconvnext.ConvNeXtV2', arch=arch)
        self.model = FCMAE(backbone).to(args.device)
        for name, param in self.model.named_parameters():
            if '.grn.' in name:
                nn.init.normal_(param, std=0.1)
        self.dense = MaskedDense(self.model)
        shape = (args.batch, 3, *args.size)
        self.images = torch.randn(shape, device=args.device)
        self.mask = self.model.random_mask(self.images)
        self.check()

    def loss(self, visible: bool) -> Tensor:
        kind = torch.device(self.device).type
        with torch.autocast(kind, self.dtype, bool(self.dtype)):
            if visible:
                return self.model(self.images, mask=self.mask)['loss']
            return self.dense(self.images, self.mask)

    def step(self, visible: bool) -> None:
        self.model.zero_grad()
        self.loss(visible).backward()

    def gradients(self, visible: bool) -> List[Tensor]:
        self.step(visible)
        return [p.grad.clone() for p in self.model.parameters()]

    def check(self) -> None:
        limit = 0.1 if self.dtype else 1e-3
        for a, b in zip(self.gradients(False), self.gradients(True)):
            error = float((a - b).norm() / a.norm().clamp(min=1e-12))
            if error > limit:
                raise ValueError(
                    f'gradients differ by {error:.1e}, at most {limit}'
                )

    def peak(self, visible: bool) -> float:
        return peak_mib(lambda: self.step(visible), self.device)

    def kept(self, visible: bool) -> float:
        run: Callable[[], Tensor] = lambda: self.loss(visible)  # noqa: E731
        return bytes_kept(self.model, self.images, run) / 2**20


def fcmae_rows(args: Namespace) -> Iterator[Row]:
    """Time of a step, MiB at its peak and kept for gradients.

    Each as dense, visible, ratio.

    ``reference``: plain PyTorch on both sides; ``auto``: with the paths
    that the ops choose.
    """
    case = Case(args, args.arch)
    title = f'FCMAE {args.arch}, {args.batch} images, {args.precision}'
    for path in PATHS:
        with ops.use(path):
            yield pair(
                f'{title}, {path}: ms',
                lambda: case.step(False),
                lambda: case.step(True),
                args.repeats,
            )
            measures = {'at peak': case.peak, 'kept': case.kept}
            for name, measure in measures.items():
                dense, ours = measure(False), measure(True)
                yield dict(
                    name=f'{title}, {path}: MiB {name}',
                    reference=f'{dense:.0f}',
                    ours=f'{ours:.0f}',
                    ratio=round(ours / dense, 2) if dense else math.nan,
                )
