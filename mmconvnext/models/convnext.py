"""ConvNeXt V1 and V2 as multi-scale backbones.

V1: A ConvNet for the 2020s, arXiv 2201.03545. V2: ConvNeXt V2: Co-designing
and Scaling ConvNets with Masked Autoencoders, arXiv 2301.00808. Parameter
names are those of the authors' code.
"""

from __future__ import annotations

import math
import types
from typing import (
    Any,
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
from .layers import (
    GRN,
    DepthwiseConv2d,
    LayerNorm2d,
    SameConv2d,
    to_nchw,
    to_nhwc,
)

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
    """The visible patches of masked images, as a block needs them.

    Pre-training implements it.
    """

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
        layer_scale_init_value: V1's layer scale, 0 for a V1 block without
            one; None builds a V2 block, which has GRN instead.
        eps: of the layer norm.
        recompute: compute the hidden map again in the backward pass.
        dilation: of the depthwise convolution.
    """

    def __init__(
        self,
        dim: int,
        drop_path: float = 0.0,
        layer_scale_init_value: Optional[float] = None,
        eps: float = 1e-6,
        recompute: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.drop_path, self.recompute = drop_path, recompute
        self.dwconv = DepthwiseConv2d(dim, dilation=dilation)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.grn: Optional[GRN] = None
        self.gamma: Optional[nn.Parameter] = None
        if layer_scale_init_value is None:
            self.grn = GRN(4 * dim)
        elif layer_scale_init_value:
            scale = torch.full((dim,), float(layer_scale_init_value))
            self.gamma = nn.Parameter(scale)

    def forward(self, x: Tensor, patches: Optional[Patches] = None) -> Tensor:
        """Compute the block on maps, or on the visible patches of maps.

        Args:
            x: ``(N, C, H, W)``, or with ``patches`` ``(P, C, p, p)``.
            patches: where the P patches lie; hidden positions are zero to
                the convolution and do not count in GRN.
        """
        if patches is None:
            x, dilation = to_nhwc(x), self.dwconv.dilation[0]
            y = ops.depthwise_conv(x, *self.dwconv.affine, dilation)
            return to_nchw(self._mlp(y, x))
        rows = patches.group(to_nhwc(patches.convolve(self.dwconv, x)))
        groups = zip(rows, patches.group(to_nhwc(x)))
        return to_nchw(patches.ungroup([self._mlp(*pair) for pair in groups]))

    def _mlp(self, x: Tensor, residual: Tensor) -> Tensor:
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
    """Both versions; V2 has no layer scale (None), and GRN instead."""

    version: int
    init_cfg: Any  # of mmengine's BaseModule, which has no types

    def __init__(
        self,
        *,
        arch: Union[str, Mapping],
        in_channels: int,
        out_indices: Sequence[int],
        output_stride: int,
        drop_path_rate: float,
        layer_scale_init_value: Optional[float],
        frozen_stages: int,
        with_cp: Union[bool, str],
        compile_backbone: bool,
        cuda_graphs: bool,
        pretrained: None,
        init_cfg: InitCfg,
    ) -> None:
        if pretrained is not None:
            raise ValueError(
                f'pretrained={pretrained!r}: weights are given as init_cfg='
                f"dict(type='Pretrained', checkpoint=...); pretrained must be "
                f'None'
            )
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
        self.output_stride = _check_one_of(
            'output_stride', output_stride, STRIDES[1:]
        )
        strides = [min(stride, output_stride) for stride in STRIDES]
        self.out_strides = tuple(strides[i] for i in self.out_indices)
        self.drop_path_rate = _check_range(
            'drop_path_rate', drop_path_rate, 0, 1
        )
        self.frozen_stages = _check_range(
            'frozen_stages', frozen_stages, -1, len(STRIDES) + 1
        )
        _check_one_of('with_cp', with_cp, CHECKPOINTING)
        self._build(layer_scale_init_value, row.eps)
        self.reset_parameters()
        self._freeze()

    def _build(self, layer_scale: Optional[float], eps: float) -> None:
        # Stages after the last one in out_indices would only cost time.
        num_stages = max(self.out_indices) + 1
        ramp = torch.linspace(
            0, self.drop_path_rate, sum(self.depths), device='cpu'
        )
        rates = [r.tolist() for r in ramp.split(self.depths)]
        widths = (self.in_channels, *self.dims)
        # What a stage does not stride, its convolutions are dilated by.
        dilations = [
            max(1, stride // self.output_stride) for stride in STRIDES
        ]
        self.downsample_layers = nn.ModuleList(
            _downsample(i, widths[i], widths[i + 1], eps, dilations[i])
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
                        dilation=dilations[i],
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
                assert module.bias is not None
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
        self, x: Tensor, patches: Optional[Patches] = None
    ) -> Tuple[Tensor, ...]:
        """Compute the normalised maps of the stages in ``out_indices``.

        Args:
            x: ``(N, in_channels, H, W)``, H and W at least 32.
            patches: for a batch of patches instead of images; x is then
                ``(P, in_channels, 32, 32)``.

        Returns:
            One ``(N, dims[i], H // s, W // s)`` per index, s being its
            stride in ``out_strides``.

        Raises:
            ValueError: for another shape.
            RuntimeError: with ``cuda_graphs``, in inference elsewhere than
                on a GPU.
        """
        self._check_input(x)
        if self.cuda_graphs and patches is None and why_not(self, x) is None:
            options = (self.out_indices, self.compile_backbone)
            return self._graphs(self, self._features, x, options)
        return self._features(x, patches)

    def _features(
        self, x: Tensor, patches: Optional[Patches] = None
    ) -> Tuple[Tensor, ...]:
        maps, norms = {}, {}
        for i, (down, stage) in enumerate(
            zip(self.downsample_layers, self.stages)
        ):
            x = down(x)
            for block in stage:  # type: ignore[attr-defined]
                x = self._run(block, x, patches)
            if i in self.out_indices:
                norms[i] = getattr(self, f'norm{i}')
                maps[i] = norms[i](x).contiguous()
        if unread.needs_joining(self):
            maps = unread.join(maps, norms, x)
        return tuple(maps[i] for i in self.out_indices)

    def _run(
        self, block: ConvNeXtBlock, x: Tensor, patches: Optional[Patches]
    ) -> Tensor:
        run = self._compiled_block(block) if self.compile_backbone else block
        if self.with_cp is True and torch.is_grad_enabled():
            return checkpoint(run, x, patches, use_reentrant=False)
        return run(x, patches)

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


def _check_range(name: str, value: Any, low: float, high: float) -> Any:
    if not low <= value < high:
        raise ValueError(f'{name} must be in [{low}, {high}), got {value!r}')
    return value


def _check_one_of(name: str, value: Any, allowed: Sequence) -> Any:
    if value not in allowed:
        raise ValueError(f'{name} must be one of {allowed}, got {value!r}')
    return value


def _downsample(
    index: int, in_dim: int, out_dim: int, eps: float, dilation: int
) -> nn.Sequential:
    if index == 0:
        conv = nn.Conv2d(in_dim, out_dim, 4, stride=4)
        return nn.Sequential(conv, LayerNorm2d(out_dim, eps))
    if dilation > 1:
        # Dilated by the stage before it, whose map it reads.
        conv = SameConv2d(in_dim, out_dim, dilation // 2)
    else:
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
            has a layer norm of its own, ``norm{i}``. A host may leave any
            of them unread, also in distributed training.
        output_stride: 32, 16 or 8, the largest stride of a map. Later stages
            are dilated instead of strided, as timm does it; the weights are
            the same. For DeepLab-like heads.
        drop_path_rate: drop path probability of the last block; the blocks
            before it rise to it linearly from 0.
        layer_scale_init_value: initial layer scale. 1e-6 for training from
            scratch; the published dense-prediction recipes use 1.0; 0 builds
            none, as in the authors' code.
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
        pretrained: None, which MMSegmentation passes to any backbone.
            Weights go into ``init_cfg``.
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
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_stride: int = 32,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        frozen_stages: int = -1,
        with_cp: Union[bool, str] = False,
        compile_backbone: bool = False,
        cuda_graphs: bool = False,
        pretrained: None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(
            arch=arch,
            in_channels=in_channels,
            out_indices=out_indices,
            output_stride=output_stride,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=_check_range(
                'layer_scale_init_value', layer_scale_init_value, 0, math.inf
            ),
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            compile_backbone=compile_backbone,
            cuda_graphs=cuda_graphs,
            pretrained=pretrained,
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
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_stride: int = 32,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: Union[bool, str] = False,
        compile_backbone: bool = False,
        cuda_graphs: bool = False,
        pretrained: None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(
            arch=arch,
            in_channels=in_channels,
            out_indices=out_indices,
            output_stride=output_stride,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=None,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            compile_backbone=compile_backbone,
            cuda_graphs=cuda_graphs,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
