"""Reading images between their pixels, as weighted sums of table rows.

Nearly every operator here is one primitive, the weighted sum of a few rows
of a table (``embedding_bag``): pixels are the rows, bilinear taps the
weights.
"""

from __future__ import annotations

from functools import wraps
from typing import Callable, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def one_thread(operator: Callable) -> Callable:
    """Runs an operator of many small steps without torch's other threads.

    Threads that wait for each other after each step gain nothing here on an
    idle machine, and take ten times as long where data loaders keep the
    cores busy.
    """

    @wraps(operator)
    def run(*args, **kwargs):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return operator(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return run


def in_full(x: Tensor) -> Tensor:
    """``x`` in at least single precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rows_of(feature: Tensor) -> Tensor:
    """Turns (N, C, H, W) into a table of pixels (N * H * W, C)."""
    n, c, h, w = feature.shape
    if feature.is_contiguous(memory_format=torch.channels_last):
        return in_full(feature.permute(0, 2, 3, 1).reshape(-1, c))
    feature = in_full(feature).reshape(n, c, h * w)
    rows = feature.new_empty(n, h * w, c)
    for row, image in zip(rows, feature):
        row.copy_(image.t())  # twice as fast as one permuted 4-D copy
    return rows.view(-1, c)


def write_rows(feature: Tensor, rows: Tensor) -> None:
    """Writes a table of pixels into an (N, C, H, W) tensor."""
    n, c, h, w = feature.shape
    for image, row in zip(feature, rows.view(n, h * w, c)):
        image.view(c, h * w).copy_(row.t())


def weighted_sum(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Row b of the result is the sum of weight[b, i] * table[index[b, i]]."""
    return F.embedding_bag(index, table, mode='sum', per_sample_weights=weight)


def scatter_sum(
    source: Tensor, bag: Tensor, index: Tensor, weight: Tensor, rows: int
) -> Tensor:
    """Transpose of :func:`weighted_sum`, itself written as weighted sums.

    Row r of the result is the sum of weight[i] * source[bag[i]] over all i
    with index[i] = r.
    """
    index, order = index.sort(stable=True)
    begin = torch.searchsorted(index, torch.arange(rows, device=index.device))
    return F.embedding_bag(
        bag[order], source, begin, mode='sum', per_sample_weights=weight[order]
    )


def bilinear_taps(
    y: Tensor, x: Tensor, height: int, width: int
) -> Tuple[Tensor, Tensor]:
    """Cells and weights of bilinear reading with zeros around the image.

    Differentiable in ``y`` and ``x``; both results have one more axis, of 4.
    """
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = (torch.where(inside, z, torch.zeros_like(z)) for z in (y, x))
    top, left = y.detach().floor(), x.detach().floor()
    dy, dx = y - top, x - left
    corners = [
        (top + i, left + j, (dy if i else 1 - dy) * (dx if j else 1 - dx))
        for i in (0, 1)
        for j in (0, 1)
    ]
    cells, weights = [], []
    for row, column, weight in corners:
        valid = (
            inside
            & (row >= 0)
            & (row < height)
            & (column >= 0)
            & (column < width)
        )
        cells.append((row * valid).long() * width + (column * valid).long())
        weights.append(weight * valid)
    return torch.stack(cells, -1), torch.stack(weights, -1)


def gradients_of(
    forward: Callable,
    inputs: List[Tensor],
    wanted: List[int],
    grad_output: Tensor,
) -> Tuple[Tensor, ...]:
    """Gradients with respect to the wanted inputs; runs ``forward`` again."""
    inputs = [x.detach() for x in inputs]
    wanted = [inputs[i].requires_grad_() for i in wanted]
    with torch.enable_grad():
        output = forward(*inputs)
    return torch.autograd.grad(output, wanted, grad_output.to(output))
