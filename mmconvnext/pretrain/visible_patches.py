"""The visible patches of a batch of images.

A mask that is constant on 32 x 32 pixels hides whole windows of every stem
and downsampling kernel. On visible patches a ConvNeXt therefore computes the
same as on a batch of separate 32 x 32 images, except for the depthwise
convolution, which sees neighbours, and GRN, which sums over an image. Both
use this module. With m the mask, 1 where visible, a block computes

    y = x + MLP(conv(m x))          in GRN, G = |m a|_2 over an image

where m is 1, so everything except ``conv`` and G needs the visible rows only:
patches ``(P, p, p, C)``. For the convolution they are put back into a map of
zeros, and its result is cut into patches again. The result is that of the
submanifold convolutions of ConvNeXt V2 (arXiv 2301.00808, section 3): hidden
positions are zero to the convolution and do not count in GRN.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

GRN_SCOPES = ('sample', 'batch')


class _Scatter(torch.autograd.Function):
    """Rows ``(R, C)`` into ``(total, C)`` of zeros, each to its own place."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(index)
        out = rows.new_zeros(total, rows.size(1))
        return out.index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        return _Gather.apply(grad, *ctx.saved_tensors), None, None


class _Gather(torch.autograd.Function):
    """Rows ``(total, C)`` to those at ``index``, which repeats none.

    torch's backward pass of index_select adds up row by row; indices that
    are all different need no sum.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.total = rows.size(0)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        (index,) = ctx.saved_tensors
        return _Scatter.apply(grad.contiguous(), index, ctx.total), None


class VisiblePatches:
    """Where visible patches are, and which neighbours they see.

    Patches are ordered by the number of visible patches of their image,
    so that images with equally many are one batch for GRN.

    Args:
        mask: ``(N, h, w)`` bool over the grid of patches, True is hidden.
        grn_scope: ``sample`` for statistics over the visible positions of
            one image; ``batch`` over all of the batch.

    Raises:
        ValueError: for another scope or a mask of another kind.
    """

    def __init__(self, mask: Tensor, grn_scope: str = 'sample') -> None:
        if mask.dim() != 3 or mask.dtype != torch.bool:
            raise ValueError(
                f'mask must be bool (N, h, w), got {mask.dtype} '
                f'{tuple(mask.shape)}'
            )
        if grn_scope not in GRN_SCOPES:
            raise ValueError(
                f'grn_scope must be one of {GRN_SCOPES}, got {grn_scope!r}'
            )
        self.shape = tuple(mask.shape)
        # ``order`` sorts the images by their number of visible patches;
        # patch i is at ``cell[i]`` (y w + x in the grid) of ``image[i]``.
        # nonzero goes through it row by row: the patches of one image follow
        # one another, and images with equally many do.
        visible = ~mask.flatten(1)
        counts, order = visible.sum(1).sort(stable=True)
        places = visible[order].nonzero()
        self.image, self.cell = order[places[:, 0]], places[:, 1]
        # (n, size): n images with ``size`` patches each, in their order. Such
        # a run of patches is a batch (n, size p p, C) without a copy.
        sizes, images = counts.unique_consecutive(return_counts=True)
        groups = zip(images.tolist(), sizes.tolist())
        self._groups = [(n, size) for n, size in groups if size]
        if grn_scope == 'batch':
            # One image of all patches: G sums over the whole batch.
            self._groups = [(1, len(self.cell))]
        self._index: Dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.cell)

    def gather(self, maps: Tensor) -> Tensor:
        """Cut the visible patches out of maps or images.

        Args:
            maps: ``(N, C, h p, w p)``, any p.

        Returns:
            ``(P, C, p, p)``, channels last in memory.
        """
        # A map in channels-last memory is a list of rows, one a position;
        # ``index`` names the rows of each patch, so that one index_select
        # does it: patch[i, y, x] = rows[index[i, y, x]].
        n, c, height, _ = maps.shape
        size = height // self.shape[1]
        rows = maps.permute(0, 2, 3, 1).reshape(-1, c)
        patches = _Gather.apply(rows, self.index(size))
        return patches.view(-1, size, size, c).permute(0, 3, 1, 2)

    def scatter(self, patches: Tensor) -> Tensor:
        """Put ``(P, C, p, p)`` back into ``(N, C, h p, w p)`` of zeros."""
        # The inverse of ``gather``, and its gradient: rows[index[i, y, x]] =
        # patch[i, y, x], all other rows are zero.
        n, height, width = self.shape
        c, size = patches.shape[1:3]
        rows = patches.permute(0, 2, 3, 1).reshape(-1, c)
        total = n * height * width * size * size
        maps = _Scatter.apply(rows, self.index(size), total)
        maps = maps.view(n, height * size, width * size, c)
        return maps.permute(0, 3, 1, 2)

    def convolve(self, conv: nn.Conv2d, patches: Tensor) -> Tensor:
        """Convolve with stride 1 as in the whole map, hidden being zero.

        Args:
            conv: keeps the size of a map.
            patches: ``(P, C, p, p)``.
        """
        # The map is computed where it is hidden too, and dropped there.
        return self.gather(conv(self.scatter(patches)))

    def group(self, patches: Tensor) -> List[Tensor]:
        """View ``(P, p, p, C)`` as ``(n, L, 1, C)`` per group of images.

        GRN takes its statistics over L positions, for each of n.
        """
        rows = patches.reshape(len(patches), -1, 1, patches.size(-1))
        parts = rows.split([n * size for n, size in self._groups])
        return [
            part.reshape(n, -1, 1, part.size(-1))
            for part, (n, _) in zip(parts, self._groups)
        ]

    def ungroup(self, groups: Sequence[Tensor]) -> Tensor:
        """Undo :meth:`group`."""
        channels = groups[0].size(-1)
        parts = [part.reshape(-1, channels) for part in groups]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        size = round((len(rows) // len(self)) ** 0.5)
        return rows.view(-1, size, size, channels)

    def index(self, size: int) -> Tensor:
        """Row of each position of each patch in maps of p = ``size``."""
        if size not in self._index:
            _, height, width = self.shape
            # Position (Y, X) of image n is row (n H + Y) W + X of the map of
            # H = h p by W = w p; patch (y, x) has Y = y p + 0..p-1 and
            # X = x p + 0..p-1. Below: n H + Y as (P, p), X as (P, p).
            y, x = self.cell // width, self.cell % width
            inner = torch.arange(size, device=self.cell.device)
            rows = (self.image * height + y)[:, None] * size + inner
            columns = x[:, None] * size + inner
            index = rows[:, :, None] * (width * size) + columns[:, None, :]
            self._index[size] = index.flatten()
        return self._index[size]
