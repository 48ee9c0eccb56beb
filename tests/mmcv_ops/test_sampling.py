"""Reading between pixels: tables of rows, taps, and their transposes."""

import pytest
import torch
import torch.nn.functional as F
from operators import DTYPES, close

from mmconvnext.mmcv_ops import sampling

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_rows_are_pixels_and_come_back(dtype, layout):
    image = torch.randn(2, 3, 5, 4).to(dtype).to(memory_format=layout)
    rows = sampling.rows_of(image)
    assert rows.dtype == torch.float32
    assert torch.equal(rows[1 * 20 + 2 * 4 + 3], image[1, :, 2, 3].float())
    back = torch.empty(2, 3, 5, 4, dtype=dtype)
    sampling.write_rows(back, rows)
    assert torch.equal(back, image)


def test_taps_read_zeros_around_the_image():
    """The reference is torch's sampler: corners aligned, zeros around."""
    height, width = 5, 7
    image = torch.randn(1, 2, height, width, dtype=torch.double)
    # Beyond the image by more than one pixel, on its last row and column too.
    y = torch.rand(40, dtype=torch.double) * (height + 3) - 2
    x = torch.rand(40, dtype=torch.double) * (width + 3) - 2
    y[:4] = torch.tensor([0.0, height - 1, -1, height])
    x[:4] = torch.tensor([width - 1.0, 0, 2, 3])
    cells, weights = sampling.bilinear_taps(y, x, height, width)
    got = sampling.weighted_sum(sampling.rows_of(image), cells, weights)
    grid = torch.stack([x / (width - 1), y / (height - 1)], -1) * 2 - 1
    wanted = F.grid_sample(image, grid[None, None], align_corners=True)
    close(got, wanted[0, :, 0].t())


def test_scatter_is_the_transpose_of_the_sum():
    """<A t, s> = <t, A' s> for any table t and source s."""
    table = torch.randn(6, 3, dtype=torch.double)
    source = torch.randn(4, 3, dtype=torch.double)
    index = torch.tensor([[0, 2], [5, 5], [2, 0], [2, 3]])
    weight = torch.randn(4, 2, dtype=torch.double)
    bag = torch.arange(4)[:, None].expand_as(index)
    back = sampling.scatter_sum(
        source, bag.flatten(), index.flatten(), weight.flatten(), len(table)
    )
    forth = sampling.weighted_sum(table, index, weight)
    close((table * back).sum(), (forth * source).sum())
    assert not back[[1, 4]].any()


def test_one_thread_gives_the_threads_back():
    seen = []

    @sampling.one_thread
    def operator():
        seen.append(torch.get_num_threads())
        raise ValueError('in between')

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match='in between'):
            operator()
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)
