"""FCMAE: pre-training a ConvNeXt by filling in hidden patches of images.

ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders,
arXiv 2301.00808, section 3. The encoder is the registered backbone itself:
``backbone.*`` of a checkpoint is what detectors and segmentors load.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Mapping, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from .. import checkpoint as checkpoints
from ..models.convnext import STRIDES, ConvNeXtBlock, InitCfg
from ..models.layers import LayerNorm2d
from ..registry import MODELS
from .visible_patches import GRN_SCOPES, VisiblePatches

CELL = STRIDES[-1]  # pixels per position of the last stage
PIXEL_EPS = 1e-6


def to_patches(images: Tensor, size: int = CELL) -> Tensor:
    """Cut ``(N, C, H, W)`` into ``(N, h, w, size * size * C)``.

    Pixels of a patch are in rows, channels last, as in the authors'
    code.
    """
    n, c, height, width = images.shape
    x = images.reshape(n, c, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3)


def to_images(patches: Tensor, size: int = CELL) -> Tensor:
    """Undo :func:`to_patches`."""
    n, h, w, _ = patches.shape
    x = patches.reshape(n, h, w, size, size, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(n, -1, h * size, w * size)


@MODELS.register_module()
class FCMAE(BaseModel):
    """Fully convolutional masked autoencoder (arXiv 2301.00808, section 3).

    Random patches are hidden; the encoder computes on the visible ones only,
    a light decoder on all; the loss is the squared error on hidden pixels.

    All weights start from a truncated normal of std .02, biases from zero,
    the mask token from a normal of std .02. The authors' code draws
    convolutions, sparse linear layers and the encoder's stem with std 1, by
    an omission that overwrites the encoder's own initialisation.

    Args:
        backbone: config of a ConvNeXt or ConvNeXtV2 of this package. Its
            ``out_indices`` are (3,) unless given, and must contain 3; the
            encoder's map is that output.
        mask_ratio: part of the patches that is hidden, in [0, 1).
        patch_size: side of a patch in pixels, a multiple of 32.
        decoder_depth: number of ConvNeXt V2 blocks in the decoder.
        decoder_dim: their channels.
        norm_pix_loss: predict pixels normalised by mean and variance of
            their 32 x 32 patch.
        encoder_norm: normalise the encoder's map (``norm3``) before the
            decoder. The authors' runs do not: set False to go on from one
            with its decoder; ``norm3`` then starts with fine-tuning.
        grn_scope: ``sample``, statistics over the visible positions of one
            image, as in fine-tuning and the paper's experiments; ``batch``,
            over all of the batch, as in the authors' PyTorch code.
        data_preprocessor: mmengine's; normalises the images.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` starts from
            any ConvNeXt checkpoint, and from its FCMAE decoder if it has
            one.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        backbone: dict,
        mask_ratio: float = 0.6,
        patch_size: int = 32,
        decoder_depth: int = 1,
        decoder_dim: int = 512,
        norm_pix_loss: bool = True,
        encoder_norm: bool = True,
        grn_scope: str = 'sample',
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.mask_ratio, self.patch_size = mask_ratio, patch_size
        self.norm_pix_loss, self.grn_scope = norm_pix_loss, grn_scope
        self.backbone = MODELS.build({'out_indices': (3,), **backbone})
        self._check_options()
        if not encoder_norm:
            self.backbone.norm3 = nn.Identity()
        self.proj = nn.Conv2d(self.backbone.dims[-1], decoder_dim, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, decoder_dim, 1, 1))
        self.decoder = nn.Sequential(
            *(ConvNeXtBlock(decoder_dim) for _ in range(decoder_depth))
        )
        pixels = CELL * CELL * self.backbone.in_channels
        self.pred = nn.Conv2d(decoder_dim, pixels, 1)
        self._reset_decoder()
        self._freeze_other_norms()

    def _check_options(self) -> None:
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(
                f'mask_ratio must be in [0, 1), got {self.mask_ratio!r}'
            )
        if self.patch_size < CELL or self.patch_size % CELL:
            raise ValueError(
                f'patch_size must be a multiple of {CELL}, got '
                f'{self.patch_size!r}'
            )
        if self.grn_scope not in GRN_SCOPES:
            raise ValueError(
                f'grn_scope must be one of {GRN_SCOPES}, got '
                f'{self.grn_scope!r}'
            )
        if 3 not in self.backbone.out_indices:
            raise ValueError(
                f'out_indices must contain 3, got {self.backbone.out_indices}'
            )
        if self.backbone.output_stride != CELL:
            raise ValueError(
                f'pre-training needs output_stride={CELL}: a mask hides whole '
                f'windows of strided convolutions; got '
                f'{self.backbone.output_stride}'
            )
        if self.grn_scope == 'batch' and self.backbone.drop_path_rate:
            raise ValueError(
                "grn_scope='batch' makes one sample of the batch, drop path "
                'drops whole samples: set drop_path_rate=0'
            )

    def _reset_decoder(self) -> None:
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.proj, self.decoder, self.pred):
            for module in part.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)

    def _freeze_other_norms(self) -> None:
        """Leave norms that only fine-tuning uses as they are."""
        for i in set(self.backbone.out_indices) - {3}:
            getattr(self.backbone, f'norm{i}').requires_grad_(False)

    def init_weights(self) -> None:
        """Start from ``init_cfg``: the encoder, and a decoder if present.

        Raises:
            CheckpointError: for weights that do not account for every
                tensor of the encoder, or hold part of a decoder.
        """
        if self.init_cfg is None:
            self.backbone.init_weights()
            return
        cfg = dict(self.init_cfg)
        if cfg.pop('type', None) != 'Pretrained':
            raise ValueError(
                f'init_cfg of FCMAE must be of type Pretrained, got '
                f'{self.init_cfg!r}'
            )
        load(self, **cfg)

    def random_mask(self, images: Tensor) -> Tensor:
        """Hide patches at random, uniformly and equally many in each image.

        ``int(L * (1 - mask_ratio))`` of the L patches stay visible. Drawn
        from torch's CPU generator for the batches of all processes at once:
        every process takes its own images' share, so that several draw what
        one process with the whole batch would draw.

        Args:
            images: ``(N, C, H, W)``, H and W multiples of ``patch_size``.

        Returns:
            ``(N, H / patch_size, W / patch_size)`` bool, True is hidden.

        Raises:
            ValueError: for sizes that no whole patches fill, or where
                nothing would stay visible.
        """
        n, h, w = self._grid(images)
        visible = int(h * w * (1 - self.mask_ratio))
        if visible < 1:
            raise ValueError(
                f'mask_ratio {self.mask_ratio} leaves none of {h * w} '
                f'patches of {self.patch_size} pixels visible'
            )
        world = get_world_size()
        noise = torch.rand(n * world, h * w)[get_rank() :: world]
        rank = noise.argsort(1).argsort(1)
        return (rank >= visible).view(n, h, w).to(images.device)

    def _grid(self, images: Tensor) -> tuple:
        if images.dim() != 4 or images.size(1) != self.backbone.in_channels:
            raise ValueError(
                f'images must be (N, {self.backbone.in_channels}, H, W), '
                f'got {tuple(images.shape)}'
            )
        n, _, height, width = images.shape
        size = self.patch_size
        if not height or not width or height % size or width % size:
            raise ValueError(
                f'height and width must be multiples of the patch size '
                f'{size}, got {height} x {width}'
            )
        return n, height // size, width // size

    def _check_mask(self, images: Tensor, mask: Tensor) -> None:
        grid = self._grid(images)
        if tuple(mask.shape) != grid or mask.dtype != torch.bool:
            raise ValueError(
                f'mask must be bool {grid}, True = hidden, got {mask.dtype} '
                f'{tuple(mask.shape)}'
            )
        if mask.all():
            raise ValueError('mask hides every patch of every image')

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Compute the last stage's map from the visible patches alone.

        Args:
            images: ``(N, C, H, W)``.
            mask: as :meth:`random_mask` returns it; images may differ in
                the number of visible patches.

        Returns:
            ``(N, dims[3], H / 32, W / 32)``, zero at hidden patches.

        Raises:
            ValueError: for a mask of another shape or type, or one that
                hides all.
        """
        self._check_mask(images, mask)
        patches = VisiblePatches(mask, self.grn_scope)
        return patches.scatter(self._encode(images, patches))

    def _encode(self, images: Tensor, patches: VisiblePatches) -> Tensor:
        maps = self.backbone(patches.gather(images), patches)
        return maps[self.backbone.out_indices.index(3)]

    def decode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Encode, fill hidden positions with the mask token, decode.

        Returns:
            ``(N, decoder_dim, H / 32, W / 32)``.
        """
        self._check_mask(images, mask)
        patches = VisiblePatches(mask, self.grn_scope)
        x = patches.scatter(self.proj(self._encode(images, patches)))
        hidden = self._cells(mask)[:, None]
        x = torch.where(hidden, self.mask_token.to(x.dtype), x)
        return self.decoder(x)

    def _cells(self, mask: Tensor) -> Tensor:
        """Refine a mask of patches to one of 32 x 32 pixels."""
        times = self.patch_size // CELL
        return mask.repeat_interleave(times, 1).repeat_interleave(times, 2)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Any = None,
        mode: str = 'loss',
        mask: Optional[Tensor] = None,
    ) -> Union[Dict[str, Tensor], Tensor]:
        """Compute the loss, the reconstruction or the features.

        Args:
            inputs: images, ``(N, C, H, W)``, normalised.
            data_samples: not used; mmengine passes them.
            mode: ``loss``; ``predict`` for :meth:`reconstruct`; ``tensor``
                for :meth:`encode`.
            mask: ``(N, h, w)`` bool, True is hidden; random if not given.

        Returns:
            For ``loss`` the mean squared error under ``loss``, and under
            ``hidden`` the mask as floats (its mean is logged).

        Raises:
            ValueError: for another mode or a wrong mask.
        """
        if mask is None:
            mask = self.random_mask(inputs)
        modes = {
            'loss': self.loss,
            'predict': self.reconstruct,
            'tensor': self.encode,
        }
        if mode not in modes:
            raise ValueError(
                f'mode must be one of {", ".join(modes)}, got {mode!r}'
            )
        return modes[mode](inputs, mask)

    def loss(self, images: Tensor, mask: Tensor) -> Dict[str, Tensor]:
        """Mean squared error on hidden patches (section 3.1 of the paper).

        Raises:
            ValueError: for a mask that hides nothing.
        """
        hidden = self._cells(mask)
        if not hidden.any():
            raise ValueError('mask hides nothing: there is nothing to predict')
        features = self.decode(images, mask).permute(0, 2, 3, 1)[hidden]
        # A 1 x 1 convolution of the hidden positions only.
        weight = self.pred.weight.flatten(1)
        pred = F.linear(features, weight, self.pred.bias)
        target = to_patches(images)[hidden]
        if self.norm_pix_loss:
            mean, std = _pixel_statistics(target)
            target = (target - mean) / std
        loss = F.mse_loss(pred.to(target.dtype), target)
        return dict(loss=loss, hidden=mask.to(loss.dtype))

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Predict all pixels, in the units of ``images``.

        With ``norm_pix_loss`` a prediction does not contain a patch's mean
        and contrast; those of the image are used.

        Returns:
            ``(N, C, H, W)``. Visible patches are never trained and come out
            as noise: paste the image there.
        """
        pred = self.pred(self.decode(images, mask)).permute(0, 2, 3, 1)
        if self.norm_pix_loss:
            mean, std = _pixel_statistics(to_patches(images))
            pred = pred.to(mean.dtype) * std + mean
        return to_images(pred)


def _pixel_statistics(patches: Tensor) -> tuple:
    """Mean and standard deviation over the last dimension, kept."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + PIXEL_EPS).sqrt()


def load(
    model: FCMAE,
    checkpoint: Any,
    sha256: Optional[str] = None,
    map_location: Any = 'cpu',
    **options: Any,
) -> None:
    """Start from a checkpoint, whole or not at all; log what was loaded.

    Args:
        model: its encoder is loaded, and its decoder if there is one.
        checkpoint: a state dict, or what :func:`checkpoint.read` takes.
        sha256, map_location: as for :func:`checkpoint.read`.
        options: ``ema`` and ``prefix`` of :func:`checkpoint.load`.

    Raises:
        CheckpointError: with the model as it was.
    """
    state, name = checkpoint, 'state dict'
    if not isinstance(checkpoint, Mapping):
        name = str(checkpoint)
        state = checkpoints.read(checkpoint, sha256, map_location)
    goals = {
        key: value
        for key, value in model.named_parameters()
        if not key.startswith('backbone.')
    }
    try:
        plain = checkpoints.is_plain(model.backbone.state_dict())
        decoder = checkpoints.find_beside(state, goals, plain=plain, **options)
    except checkpoints.CheckpointError as error:
        raise checkpoints.CheckpointError(f'{name}: {error}') from error
    account = checkpoints.load(model.backbone, state, **options)
    with torch.no_grad():
        for key, value in decoder.items():
            goals[key].copy_(value)
    what = f'loaded, {len(decoder)} tensors' if decoder else 'starts afresh'
    print_log(f'decoder of FCMAE, {name}: {what}', logger='current')
    if decoder:
        _log_norm(model, account)


def _log_norm(model: FCMAE, account: checkpoints.Account) -> None:
    """Say where a decoder that was loaded reads another map than before."""
    has = isinstance(model.backbone.norm3, LayerNorm2d)
    if has and 'norm3.weight' in account.absent:
        text = (
            "the decoder was trained without norm3, as in the authors' runs, "
            'and reads a fresh one now; encoder_norm=False leaves it out'
        )
    elif not has and any('norm3.' in key for key in account.dropped):
        text = (
            'the decoder was trained with norm3, which encoder_norm=False '
            'leaves out'
        )
    else:
        return
    print_log(text, logger='current', level=logging.WARNING)
