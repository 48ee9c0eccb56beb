"""ConvNeXt V1 and V2 as multi-scale backbones: one family in one file.

V1: A ConvNet for the 2020s, arXiv 2201.03545. V2: ConvNeXt V2: Co-designing
and Scaling ConvNets with Masked Autoencoders, arXiv 2301.00808. Parameter
names are those of the authors' code.
"""

from __future__ import annotations

import types
from typing import (
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import checkpoint as checkpoints
from .. import ops
from ..archs import ARCHS, STRIDES, get_arch  # noqa: F401 (public here too)
from ..registry import MODELS
from . import unread
from .cuda_graphs import GraphCache, why_not
from .layers import GRN, DepthwiseConv2d, LayerNorm2d, to_nchw, to_nhwc

CHECKPOINTING = (False, True, 'hidden')
InitCfg = Optional[Union[dict, List[dict]]]


def _resolve_out_indices(out_indices: Sequence[int]) -> Tuple[int, ...]:
    num = len(STRIDES)
    indices = (
        tuple(out_indices)
        if isinstance(out_indices, (list, tuple))
        else (out_indices,)
    )
    if not indices or any(
        not isinstance(i, int) or not -num <= i < num for i in indices
    ):
        raise ValueError(
            f'out_indices must be integers from {-num} to {num - 1}, '
            f'got {out_indices!r}'
        )
    resolved = tuple(i % num for i in indices)
    if len(set(resolved)) != len(resolved):
        raise ValueError(f'out_indices repeats a stage: {out_indices!r}')
    return resolved


class Patches(Protocol):
    """What a block asks of visible patches; pre-training implements it."""

    def convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Convolve patches as parts of their images, zero where hidden."""

    def group(self, x: Tensor) -> List[Tensor]:
        """Split into parts over which GRN takes its statistics."""

    def ungroup(self, parts: List[Tensor]) -> Tensor:
        """Undo :meth:`group`."""


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then norm, expand, GELU, [GRN], project, residual.

    ``(N, C, H, W) -> (N, C, H, W)``; inside, memory stays channels last.

    Args:
        dim: number of channels C.
        drop_path: probability to drop the branch of a sample in training.
        layer_scale_init_value: V1's layer scale; None builds a V2 block,
            which has GRN instead.
        eps: of the layer norm.
        recompute: compute the hidden map again in the backward pass.
    """

    def __init__(
        self,
        dim: int,
        drop_path: float = 0.0,
        layer_scale_init_value: Optional[float] = None,
        eps: float = 1e-6,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path, self.recompute = drop_path, recompute
        self.dwconv = DepthwiseConv2d(dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.grn: Optional[GRN] = None
        self.gamma: Optional[nn.Parameter] = None
        if layer_scale_init_value is None:
            self.grn = GRN(4 * dim)
        else:
            scale = torch.full((dim,), float(layer_scale_init_value))
            self.gamma = nn.Parameter(scale)

    def forward(self, x: Tensor, pages: Optional[Patches] = None) -> Tensor:
        """Compute the block on maps, or on the visible patches of maps.

        Args:
            x: ``(N, C, H, W)``, or with ``pages`` ``(P, C, p, p)``.
            pages: where the P patches lie; what is hidden counts as zero
                in the convolution and not at all in GRN.
        """
        if pages is None:
            weights, eps = self.dwconv.affine, self.norm.eps
            x = to_nhwc(x)
            y, moments = ops.depthwise_conv_moments(x, *weights, eps)
            return to_nchw(self._mlp(y, x, moments))
        y = pages.group(to_nhwc(pages.convolve(self.dwconv, x)))
        groups = zip(y, pages.group(to_nhwc(x)))
        return to_nchw(pages.ungroup([self._mlp(*pair) for pair in groups]))

    def _mlp(
        self, x: Tensor, residual: Tensor, moments: Optional[Tensor] = None
    ) -> Tensor:
        return ops.convnext_mlp(
            x,
            residual,
            (self.norm.weight, self.norm.bias),
            (self.pwconv1.weight, self.pwconv1.bias),
            (self.pwconv2.weight, self.pwconv2.bias),
            grn_affine=None if self.grn is None else self.grn.affine,
            layer_scale=self.gamma,
            keep=self._sample_keep(x),
            eps=self.norm.eps,
            recompute=self.recompute,
            moments=moments,
        )

    def _sample_keep(self, x: Tensor) -> Optional[Tensor]:
        """Drop path factor per sample (arXiv 1603.09382), None if unused."""
        if not self.training or self.drop_path == 0.0:
            return None
        keep = x.new_empty(x.size(0), 1, 1, 1)
        return keep.bernoulli_(1 - self.drop_path).div_(1 - self.drop_path)

    def extra_repr(self) -> str:
        return f'drop_path={self.drop_path:.3g}'


def _with_own_code(function: Callable) -> Callable:
    """Copy a function so that it has a code object of its own.

    torch.compile keeps a few variants of each code object (shapes, training
    or not) before it gives up; blocks must not share that number.
    """
    return types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class _Backbone(BaseModule):
    """What both versions share; the layer scale, or None, tells them apart."""

    version: int

    def __init__(
        self,
        *,
        arch: Union[str, Mapping],
        in_channels: int,
        out_indices: Sequence[int],
        drop_path_rate: float,
        layer_scale_init_value: Optional[float],
        frozen_stages: int,
        with_cp: Union[bool, str],
        compile_backbone: bool,
        cuda_graphs: bool,
        init_cfg: InitCfg,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.compile_backbone = compile_backbone
        self._compiled: Dict[int, Callable] = {}
        self.cuda_graphs = cuda_graphs
        self._graphs = GraphCache()
        row = get_arch(arch, self.version)
        self.arch, self.depths, self.dims = arch, row.depths, row.dims
        self.in_channels, self.with_cp = in_channels, with_cp
        self.out_indices = _resolve_out_indices(out_indices)
        self.out_channels = tuple(self.dims[i] for i in self.out_indices)
        self.out_strides = tuple(STRIDES[i] for i in self.out_indices)
        self.drop_path_rate = _check_range(
            'drop_path_rate', drop_path_rate, 0, 1
        )
        self.frozen_stages = _check_range(
            'frozen_stages', frozen_stages, -1, len(STRIDES) + 1
        )
        if with_cp not in CHECKPOINTING:
            raise ValueError(
                f'with_cp must be one of {CHECKPOINTING}, got {with_cp!r}'
            )
        self._build(layer_scale_init_value, row.eps)
        self.reset_parameters()
        self._freeze()

    def _build(self, layer_scale: Optional[float], eps: float) -> None:
        # Stages behind the last one asked for would only cost time, and
        # parameters without gradient stop DistributedDataParallel.
        num_stages = max(self.out_indices) + 1
        rates = torch.linspace(
            0, self.drop_path_rate, sum(self.depths), device='cpu'
        )
        rates = [r.tolist() for r in rates.split(self.depths)]
        widths = (self.in_channels, *self.dims)
        self.downsample_layers = nn.ModuleList(
            _downsample(i, widths[i], widths[i + 1], eps)
            for i in range(num_stages)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ConvNeXtBlock(
                        self.dims[i],
                        rate,
                        layer_scale,
                        eps,
                        recompute=self.with_cp == 'hidden',
                    )
                    for rate in rates[i]
                )
            )
            for i in range(num_stages)
        )
        for i in sorted(self.out_indices):
            self.add_module(f'norm{i}', LayerNorm2d(self.dims[i], eps))

    def reset_parameters(self) -> None:
        """Initialise as published: truncated normal of std .02, zero bias.

        Norms start as the identity, GRN at zero, the layer scale at its
        value (arXiv 2201.03545, table 5; arXiv 2301.00808, appendix A).
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``; weights load whole or not at all.

        Raises:
            CheckpointError: for weights that do not account for every
                tensor of this backbone.
        """
        given = self.init_cfg
        self.init_cfg = checkpoints.resolve_init_cfg(given)
        try:
            super().init_weights()
        finally:
            self.init_cfg = given

    def forward(
        self, x: Tensor, pages: Optional[Patches] = None
    ) -> Tuple[Tensor, ...]:
        """Compute the normalised maps of the stages in ``out_indices``.

        Args:
            x: ``(N, in_channels, H, W)``, H and W at least 32.
            pages: for a batch of patches instead of images; x is then
                ``(P, in_channels, 32, 32)``.

        Returns:
            One ``(N, dims[i], H // s, W // s)`` per index, s = 4, 8, 16, 32.

        Raises:
            ValueError: for another shape.
            RuntimeError: with ``cuda_graphs``, in inference elsewhere than
                on a GPU.
        """
        self._check_input(x)
        if self.cuda_graphs and pages is None and why_not(self, x) is None:
            options = (self.out_indices, self.compile_backbone)
            return self._graphs(self, self._features, x, options)
        return self._features(x, pages)

    def _features(
        self, x: Tensor, pages: Optional[Patches] = None
    ) -> Tuple[Tensor, ...]:
        maps, norms = {}, {}
        for i, (down, stage) in enumerate(
            zip(self.downsample_layers, self.stages)
        ):
            x = down(x)
            for block in stage:
                x = self._run(block, x, pages)
            if i in self.out_indices:
                norms[i] = getattr(self, f'norm{i}')
                maps[i] = norms[i](x).contiguous()
        if unread.needs_joining(self):
            maps = unread.join(maps, norms, x)
        return tuple(maps[i] for i in self.out_indices)

    def _run(
        self, block: ConvNeXtBlock, x: Tensor, pages: Optional[Patches]
    ) -> Tensor:
        run = self._compiled_block(block) if self.compile_backbone else block
        if self.with_cp is True and torch.is_grad_enabled():
            return checkpoint(run, x, pages, use_reentrant=False)
        return run(x, pages)

    def _compiled_block(self, block: ConvNeXtBlock) -> Callable:
        if id(block) not in self._compiled:
            forward = _with_own_code(ConvNeXtBlock.forward)
            self._compiled[id(block)] = torch.compile(
                types.MethodType(forward, block), dynamic=True
            )
        return self._compiled[id(block)]

    def __getstate__(self) -> Dict:
        # A copy has other blocks, and compiles them when they first run.
        return {**self.__dict__, '_compiled': {}}

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.size(1) != self.in_channels:
            raise ValueError(
                f'input must be (N, {self.in_channels}, H, W), '
                f'got {tuple(x.shape)}'
            )
        if x.size(2) < STRIDES[-1] or x.size(3) < STRIDES[-1]:
            raise ValueError(
                f'input must be at least {STRIDES[-1]} x {STRIDES[-1]} '
                f'pixels, got {x.size(2)} x {x.size(3)}'
            )

    def _frozen_modules(self) -> List[nn.Module]:
        frozen = [self.downsample_layers[0]] if self.frozen_stages >= 0 else []
        for i in range(min(self.frozen_stages, len(self.stages))):
            frozen += [self.downsample_layers[i], self.stages[i]]
        return frozen

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> _Backbone:
        """Switch the mode; frozen stages stay in eval. Returns self."""
        super().train(mode)
        self._freeze()
        return self


def _check_range(name: str, value: float, low: float, high: float) -> float:
    if not low <= value < high:
        raise ValueError(f'{name} must be in [{low}, {high}), got {value!r}')
    return value


def _downsample(
    index: int, in_dim: int, out_dim: int, eps: float
) -> nn.Sequential:
    if index == 0:
        conv = nn.Conv2d(in_dim, out_dim, 4, stride=4)
        return nn.Sequential(conv, LayerNorm2d(out_dim, eps))
    conv = nn.Conv2d(in_dim, out_dim, 2, stride=2)
    return nn.Sequential(LayerNorm2d(in_dim, eps), conv)


@MODELS.register_module()
class ConvNeXt(_Backbone):
    """ConvNeXt V1 backbone (arXiv 2201.03545).

    Args:
        arch: a name in ``ARCHS`` published for V1, or
            ``dict(depths=[...], dims=[...])`` with four numbers each.
        in_channels: number of input channels.
        out_indices: stages to return, 0 to 3 or negative, no repeats. Each
            has a layer norm of its own, ``norm{i}``.
        drop_path_rate: drop path probability of the last block; the blocks
            before it rise to it linearly from 0.
        layer_scale_init_value: initial layer scale. 1e-6 for training from
            scratch; the published dense-prediction recipes use 1.0.
        frozen_stages: -1 none, 0 the stem, k the stem and the first k
            stages: no gradient, always in eval mode. The output norms,
            which no pre-trained weights contain, stay trainable.
        with_cp: recompute in the backward pass to save memory: True each
            block, ``'hidden'`` only the 4C-wide hidden map of each.
        compile_backbone: torch.compile each block for any size of image, so
            that multi-scale training compiles once.
        cuda_graphs: in inference on a GPU, replay a CUDA graph where an
            image size comes again. Training and the calls that
            :func:`.cuda_graphs.why_not` names run as usual.
        init_cfg: mmengine's initialisation config; ``type='Pretrained'``
            takes ``checkpoint`` and what :func:`mmconvnext.checkpoint.load`
            takes.

    Raises:
        ValueError: for an unknown arch or an option out of range.
    """

    version = 1

    def __init__(
        self,
        arch: Union[str, Mapping] = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        frozen_stages: int = -1,
        with_cp: Union[bool, str] = False,
        compile_backbone: bool = False,
        cuda_graphs: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(
            arch=arch,
            in_channels=in_channels,
            out_indices=out_indices,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=float(layer_scale_init_value),
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            compile_backbone=compile_backbone,
            cuda_graphs=cuda_graphs,
            init_cfg=init_cfg,
        )


@MODELS.register_module()
class ConvNeXtV2(_Backbone):
    """ConvNeXt V2 backbone (arXiv 2301.00808): GRN, no layer scale.

    Args and errors: as :class:`ConvNeXt`, without the layer scale.
    """

    version = 2

    def __init__(
        self,
        arch: Union[str, Mapping] = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: Union[bool, str] = False,
        compile_backbone: bool = False,
        cuda_graphs: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(
            arch=arch,
            in_channels=in_channels,
            out_indices=out_indices,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=None,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            compile_backbone=compile_backbone,
            cuda_graphs=cuda_graphs,
            init_cfg=init_cfg,
        )
