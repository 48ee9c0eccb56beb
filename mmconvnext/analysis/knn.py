"""Weighted k nearest neighbours: what features are worth without training.

As in DINO (arXiv 2104.14294): the k training images whose features are most
alike by cosine vote for their classes, each with ``exp(cosine / T)``. Nothing
is fitted, so that the accuracy is the features' own.
"""

from __future__ import annotations

import contextlib
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..models.convnext import ConvNeXt, ConvNeXtV2
from .class_images import Images, Settings, collate

TOPK = (1, 5)
ROWS, COLUMNS = 1024, 65536  # of a block of cosines: 256 MiB

Progress = Callable[[Iterable, str, int], Iterable]


class Features(NamedTuple):
    """Of a set of images.

    Attributes:
        vectors: ``(N, C)`` float32 of length one, on the CPU.
        labels: ``(N,)`` class numbers.
        broken: files that could not be read and are left out: the reasons.
    """

    vectors: Tensor
    labels: Tensor
    broken: Dict[str, str]


class Result(NamedTuple):
    """Accuracies in percent by k, and what they are of.

    Attributes:
        accuracy: by k: 'top1', and 'top5' where there are more classes.
        images: number of training and of validation images that count.
        classes: number of classes.
        broken: as of :class:`Features`, of both parts.
    """

    accuracy: Dict[int, Dict[str, float]]
    images: Tuple[int, int]
    classes: int
    broken: Dict[str, str]

    @property
    def best(self) -> int:
        """The k of the highest top-1."""
        return max(self.accuracy, key=lambda k: self.accuracy[k]['top1'])


# --- features ----------------------------------------------------------------


def find_backbone(model: nn.Module) -> nn.Module:
    """Find the ConvNeXt of a model: ``backbone``, or the only one.

    Raises:
        ValueError: where there is none, or several.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (ConvNeXt, ConvNeXtV2))
    }
    if 'backbone' in found:
        return found['backbone']
    if len(found) != 1:
        raise ValueError(
            f'{type(model).__name__} must have one ConvNeXt backbone, it has '
            f'{sorted(found) or "none"}'
        )
    return next(iter(found.values()))


def pooled(backbone: nn.Module, images: Tensor) -> Tensor:
    """Average the last stage's map, ``(N, 3, H, W) -> (N, C)``.

    No output norm: it belongs to what comes next and differs by file. That
    of a classifier acts on pooled features, that of a dense model on each
    position, a released FCMAE file has none. The stages are in all of them.
    """
    for down, stage in zip(backbone.downsample_layers, backbone.stages):
        images = stage(down(images))
    return images.mean((-2, -1))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation without gradients; restore each module's mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def extract(
    backbone: nn.Module,
    images: Images,
    settings: Settings,
    progress: Optional[Progress] = None,
    words: str = 'features',
) -> Features:
    """Compute the features of images: pooled, then divided by their length.

    Only directions count, so that a product of two is their cosine: lengths
    say how much contrast an image has rather than what it shows. Modes of
    the backbone and random states stay as they are.

    Raises:
        ValueError: where no image can be read.
    """
    first = next(backbone.parameters())
    loader = DataLoader(
        images,
        settings.batch_size,
        num_workers=settings.num_workers,
        collate_fn=collate,
        # Otherwise the loader draws a seed from the state of training.
        generator=torch.Generator(),
    )
    mean, std = (
        torch.tensor(values, device=first.device).view(-1, 1, 1)
        for values in (settings.mean, settings.std)
    )
    vectors, labels, broken = [], [], {}
    with evaluating(backbone):
        batches = progress(loader, words, len(loader)) if progress else loader
        for batch in batches:
            broken.update(batch.broken)
            labels += batch.labels
            if batch.images is None:
                continue
            pixels = batch.images.to(first.device)
            inputs = ((pixels - mean) / std).to(first.dtype)
            found = pooled(backbone, inputs).float()
            vectors.append(F.normalize(found, dim=1).cpu())
    if not vectors:
        path, reason = next(iter(broken.items()))
        raise ValueError(f'no image can be read; {path}: {reason}')
    return Features(torch.cat(vectors), torch.tensor(labels), broken)


# --- the vote ----------------------------------------------------------------


def nearest(
    queries: Tensor, bank: Tensor, k: int, columns: int = COLUMNS
) -> Tuple[Tensor, Tensor]:
    """Find the k vectors of ``bank`` with the largest products.

    Args:
        queries: ``(Q, C)``; all products with a block are held at once.
        bank: ``(N, C)``, on any device.
        k: at most N.
        columns: of ``bank`` in a block.

    Returns:
        Products, the largest first, and places in ``bank``, ``(Q, k)`` each.
    """
    best = queries.new_empty(len(queries), 0)
    places = best.long()
    for start in range(0, len(bank), columns):
        block = bank[start : start + columns].to(queries.device)
        top = (queries @ block.T).topk(min(k, len(block)), 1)
        both = torch.cat([best, top.values], 1)
        where = torch.cat([places, top.indices + start], 1)
        best, kept = both.topk(min(k, both.size(1)), 1)
        places = where.gather(1, kept)
    return best, places


def votes(
    cosines: Tensor, labels: Tensor, classes: int, temperature: float
) -> Tensor:
    """Sum ``exp(cosine / T)`` of the neighbours of each class.

    Args:
        cosines, labels: ``(Q, k)``, the nearest neighbour first.
        classes: their number.
        temperature: T.

    Returns:
        ``(Q, classes)`` float64, in units of the first neighbour's vote,
        which ``exp`` could not hold at a low T.
    """
    cosines = cosines.double()
    weights = ((cosines - cosines[:, :1]) / temperature).exp()
    sums = weights.new_zeros(len(cosines), classes)
    return sums.scatter_add_(1, labels, weights)


def score(
    train: Features,
    val: Features,
    classes: int,
    k: Sequence[int],
    temperature: float,
    device: str = 'cpu',
    rows: int = ROWS,
) -> Dict[int, Dict[str, float]]:
    """Let the neighbours vote, in blocks, for each k.

    Of classes with equal votes the worst place counts: where nobody voted
    for the right one it is not among the best five.

    Returns:
        Percentages 'top1' and, with more than five classes, 'top5', by k.

    Raises:
        ValueError: for a k above the number of training images.
    """
    if max(k) > len(train.labels):
        raise ValueError(
            f'k must be at most the number of training images, '
            f'{len(train.labels)}, got {max(k)}'
        )
    hits = {n: dict.fromkeys(TOPK, 0) for n in k}
    for start in range(0, len(val.labels), rows):
        queries = val.vectors[start : start + rows].to(device)
        truth = val.labels[start : start + rows, None]
        cosines, places = (
            x.cpu() for x in nearest(queries, train.vectors, max(k))
        )
        labels = train.labels[places]
        for n, row in hits.items():
            sums = votes(cosines[:, :n], labels[:, :n], classes, temperature)
            ranks = (sums >= sums.gather(1, truth)).sum(1)
            for top in row:
                row[top] += int((ranks <= top).sum())
    return {
        n: {
            f'top{top}': 100 * count / len(val.labels)
            for top, count in row.items()
            if top == 1 or top < classes
        }
        for n, row in hits.items()
    }


def measure(
    backbone: nn.Module,
    parts: Tuple[Images, Images],
    settings: Settings,
    progress: Optional[Progress] = None,
) -> Result:
    """Compute features of both parts and let them vote.

    Args:
        backbone: a ConvNeXt with a last stage, on any device.
        parts: of :func:`open_data`.
        settings: the same.
        progress: wraps the batches; called with words and their number.
    """
    train, val = (
        extract(backbone, part, settings, progress, f'features of {name}')
        for part, name in zip(parts, (settings.train, settings.val))
    )
    classes = len(parts[0].classes)
    device = str(next(backbone.parameters()).device)
    accuracy = score(
        train, val, classes, settings.k, settings.temperature, device
    )
    counts = (len(train.labels), len(val.labels))
    return Result(accuracy, counts, classes, {**train.broken, **val.broken})
