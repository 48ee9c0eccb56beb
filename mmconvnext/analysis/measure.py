"""What the features do: collapse, dead and saturated channels, selectivity.

The measures are those of ConvNeXt V2 (arXiv 2301.00808), section 4 and
appendix C, whose code was never released. They work on the blocks of any
model. A block runs its inside as one op, so intermediate maps are computed
again from its parameters.
"""

from __future__ import annotations

import fnmatch
import math
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..models.layers import to_nhwc

# The paper does not say on which side of GRN it measures.
WHERE = {
    'gelu': 'the 4C expansion after GELU, before GRN',
    'grn': 'the 4C expansion after GELU and, in V2, GRN',
    'block': 'the output of the block',
}
DEAD, SATURATED = 1e-3, 0.05
DEFINITIONS = {
    'distance': 'mean of (1 - cos) / 2 over all pairs of live channels, '
    'each pair with itself included: 0 for equal channels, (C - 1) / (2 C) '
    'for orthogonal ones; per image, then the mean over images',
    'dead': 'share of the channels whose L2 norm over the positions of an '
    f'image is at most {DEAD} of the mean norm of all channels of the layer',
    'saturated': 'share of the channels that are not dead and the same '
    f'everywhere: standard deviation over the positions at most {SATURATED} '
    'of the root mean square',
    'selectivity': '(m - r) / (m + r) per channel, m the largest class mean '
    'of the activation, r the mean of the other class means; activation: '
    'mean of |x| over the positions; then the mean over the channels',
}


class Measures(NamedTuple):
    """One number per image each, ``(N,)``; NaN where it has no meaning."""

    distance: Tensor
    dead: Tensor
    saturated: Tensor


def measure(x: Tensor) -> Measures:
    """Measure how alike the channels of each image are.

    With unit vectors ``u_i = x_i / |x_i|`` the mean over all pairs is
    ``d = (1 - |mean_i u_i|^2) / 2``: linear in C, no C x C matrix. A dead
    channel has cosine 0 to every other and would count as different from
    all, so only live ones enter. ``DEFINITIONS`` defines each measure.

    Args:
        x: ``(N, H, W, C)``; any H and W with H W positions.

    Returns:
        The distance is NaN for an image without a live channel, the
        saturated share for a single position, and everything where x is not
        finite.
    """
    x, norm, live, flat = _channels(x)
    known = torch.where(norm.sum(1).isfinite(), 1.0, math.nan)
    several = 1.0 if x.size(1) > 1 else math.nan
    return Measures(
        _distance(x, norm, live),
        known * (1 - live.to(x).mean(1)),
        known * several * flat.to(x).mean(1),
    )


def dead_and_saturated(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Classify each channel of ``(N, H, W, C)``; results are ``(N, C)``."""
    _, _, live, flat = _channels(x)
    return ~live, flat


def _channels(x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    x = x.flatten(1, 2)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=1)
    live = norm > DEAD * norm.mean(1, keepdim=True)
    # The squared cosine to a constant is 1 - variance / mean square.
    cosine = x.mean(1).square() * x.size(1) / norm.square()
    return x, norm, live, live & (cosine >= 1 - SATURATED**2)


def _distance(x: Tensor, norm: Tensor, live: Tensor) -> Tensor:
    weights = torch.where(live, 1 / norm, torch.zeros_like(norm))
    mean = (x @ weights[..., None])[..., 0] / live.sum(1, keepdim=True)
    return ((1 - mean.square().sum(1)) / 2).clamp(min=0)


def class_selectivity(means: Tensor) -> Tensor:
    """Selectivity index of each channel (Morcos et al., arXiv 1803.06959).

    Args:
        means: mean activation of each class, ``(classes, C)``, at least
            two classes, none negative.

    Returns:
        ``(C,)``, 0 for a channel that treats all classes alike, 1 for one
        that a single class activates, NaN for one that no class activates.
    """
    best = means.max(0).values
    rest = (means.sum(0) - best) / (len(means) - 1)
    return (best - rest) / (best + rest)


class LayerStatistics:
    """Collects the measures of a layer, image by image.

    Memory is a few numbers per image, and two per class and channel.
    """

    def __init__(self) -> None:
        self.channels = 0
        self._values: Dict[str, List[float]] = {
            name: [] for name in Measures._fields
        }
        self._sums: Dict[str, Tensor] = {}
        self._counts: Dict[str, int] = {}

    def update(self, x: Tensor, label: Optional[str] = None) -> None:
        """Add a batch ``(N, H, W, C)``, all of one class if given."""
        self.channels = x.size(-1)
        for values, found in zip(self._values.values(), measure(x)):
            values += found.tolist()
        if label is not None:
            total = x.abs().mean((1, 2)).double().sum(0)
            self._sums[label] = self._sums.get(label, 0) + total
            self._counts[label] = self._counts.get(label, 0) + len(x)

    def summary(self) -> Dict[str, float]:
        """Return the means over images, and the distance's deviation."""
        result = {name: _mean(v) for name, v in self._values.items()}
        squares = [
            (value - result['distance']) ** 2
            for value in self._values['distance']
        ]
        result['distance_std'] = math.sqrt(_mean(squares))
        return result

    def selectivity(self) -> Tensor:
        """Return the index of each channel that is active at all.

        Raises:
            ValueError: for fewer than two classes.
        """
        if len(self._sums) < 2:
            raise ValueError(
                f'selectivity needs images of two classes or more, got '
                f'{sorted(self._sums)}'
            )
        means = [self._sums[k] / self._counts[k] for k in sorted(self._sums)]
        index = class_selectivity(torch.stack(means))
        return index[index.isfinite()]


def _mean(values: Sequence[float]) -> float:
    # fsum rounds once, so the order of images does not matter.
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


BLOCK_PARTS = ('dwconv', 'norm', 'pwconv1', 'pwconv2')


def find_blocks(model: nn.Module) -> Dict[str, nn.Module]:
    """Return the ConvNeXt blocks of a model by name, in its order."""
    return {
        name: module
        for name, module in model.named_modules()
        if all(hasattr(module, part) for part in BLOCK_PARTS)
    }


def choose(
    blocks: Mapping[str, nn.Module], patterns: Sequence[str]
) -> Dict[str, nn.Module]:
    """Keep the blocks that one of the patterns (``*`` and ``?``) matches.

    Raises:
        ValueError: for a pattern that matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(blocks, pattern):
            raise ValueError(
                f'no block is called {pattern!r}; there are '
                f'{", ".join(blocks) or "none"}'
            )
    return {
        name: block
        for name, block in blocks.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def check_where(where: str) -> str:
    if where not in WHERE:
        raise ValueError(f'where must be one of {list(WHERE)}, got {where!r}')
    return where


def features(
    block: nn.Module,
    where: str,
    x: Tensor,
    patches: Any = None,
    output: Optional[Tensor] = None,
) -> Iterator[Tensor]:
    """Compute the maps inside a block again, to measure them.

    Runs in the precision of the parameters, without gradients and without
    randomness.

    Args:
        block: has the parts of a ConvNeXt block, and GRN or not.
        where: a key of ``WHERE``.
        x: input of the block, ``(N, C, H, W)``, or with ``patches``
            ``(P, C, p, p)``.
        patches: where visible patches are, as
            :class:`mmconvnext.pretrain.visible_patches.VisiblePatches`.
        output: of the block, of the shape of its input.

    Yields:
        ``(n, H, W, C or 4C)`` of images, ``(1, L, 1, ...)`` with patches: L
        visible positions of one image.
    """
    # Autocast would cache casts made without gradients and use them in the
    # training step.
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        if where == 'block':
            maps = to_nhwc(output)
        else:
            maps = _expansion(block, where, x, patches)
        if patches is None:
            yield maps
            return
        counts = patches.image.unique_consecutive(return_counts=True)[1]
        for part in maps.split(counts.tolist()):
            yield part.reshape(1, -1, 1, part.size(-1))


def _expansion(
    block: nn.Module, where: str, x: Tensor, patches: Any
) -> Tensor:
    x = x.to(block.dwconv.weight.dtype)
    grn = getattr(block, 'grn', None) if where == 'grn' else None

    def expand(x: Tensor) -> Tensor:
        y = F.gelu(block.pwconv1(block.norm(x)))
        return y if grn is None else grn(y)

    if patches is None:
        return expand(to_nhwc(block.dwconv(x)))
    groups = patches.group(to_nhwc(patches.convolve(block.dwconv, x)))
    return patches.ungroup([expand(group) for group in groups])


def attach(
    blocks: Mapping[str, nn.Module],
    where: str,
    see: Callable[[str, Iterator[Tensor]], None],
) -> List[RemovableHandle]:
    """Call ``see(name, features)`` whenever a block has run.

    Returns:
        Handles; ``remove`` each of them to stop the calls.
    """

    def hook_of(name: str) -> Callable:
        def hook(block: nn.Module, args: tuple, kwargs: dict, output: Tensor):
            given = dict(zip(('x', 'patches'), args), **kwargs)
            see(name, features(block, where, output=output, **given))

        return hook

    return [
        block.register_forward_hook(hook_of(name), with_kwargs=True)
        for name, block in blocks.items()
    ]
