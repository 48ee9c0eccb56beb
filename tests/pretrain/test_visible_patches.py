"""VisiblePatches return to their places and see their neighbours."""

import pytest
import torch
from torch import nn

from mmconvnext.pretrain.visible_patches import VisiblePatches

# Two images with two visible patches, one with one, one with none.
MASK = ~torch.tensor(
    [
        [[0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
    ],
    dtype=torch.bool,
)


def maps(size: int, channels: int = 5) -> torch.Tensor:
    shape = (len(MASK), channels, 2 * size, 3 * size)
    return torch.randn(shape, dtype=torch.float64)


def visible(size: int) -> torch.Tensor:
    rows = (~MASK)[:, None].repeat_interleave(size, 2)
    return rows.repeat_interleave(size, 3)


@pytest.mark.parametrize('size', [1, 2, 3, 8])
def test_scatter_undoes_gather_but_for_what_is_hidden(size: int):
    patches = VisiblePatches(MASK)
    x = maps(size)
    cut = patches.gather(x)
    assert cut.shape == (len(patches), 5, size, size) == (5, 5, size, size)
    assert torch.equal(patches.scatter(cut), x * visible(size))


def test_images_with_equally_many_patches_are_one_group():
    patches = VisiblePatches(MASK)
    cut = patches.gather(maps(2)).permute(0, 2, 3, 1)
    groups = patches.group(cut)
    assert [tuple(g.shape) for g in groups] == [(1, 4, 1, 5), (2, 8, 1, 5)]
    assert torch.equal(patches.ungroup(groups), cut)
    (batch,) = VisiblePatches(MASK, 'batch').group(cut)
    assert batch.shape == (1, 20, 1, 5)


def test_a_group_holds_the_positions_of_its_image():
    patches = VisiblePatches(MASK)
    number = torch.arange(len(MASK), dtype=torch.float64)
    x = number.view(-1, 1, 1, 1).expand(-1, 1, 4, 6)
    groups = patches.group(patches.gather(x).permute(0, 2, 3, 1))
    found = [sorted(set(row.flatten().tolist())) for g in groups for row in g]
    assert found == [[1.0], [0.0], [2.0]]


@pytest.mark.parametrize('size', [1, 2, 4])
def test_convolution_sees_hidden_as_zero(size: int):
    conv = nn.Conv2d(5, 5, 7, padding=3, groups=5).double()
    patches, x = VisiblePatches(MASK), maps(size)
    found = patches.scatter(patches.convolve(conv, patches.gather(x)))
    seen = visible(size)
    torch.testing.assert_close(found, conv(x * seen) * seen)


@pytest.mark.parametrize('what', ['gather', 'scatter', 'convolve'])
def test_gradients_and_second_derivatives(what: str):
    patches, size = VisiblePatches(MASK), 2
    x = maps(size, 2)
    x = (x if what == 'gather' else patches.gather(x)).requires_grad_()
    conv = nn.Conv2d(2, 2, 7, padding=3, groups=2).double()
    run = {
        'gather': patches.gather,
        'scatter': patches.scatter,
        'convolve': lambda x: patches.convolve(conv, x),
    }[what]
    assert torch.autograd.gradcheck(lambda x: run(x).sin(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: run(x).sin(), (x,))


@pytest.mark.parametrize(
    ('mask', 'scope', 'message'),
    [
        (MASK.float(), 'sample', 'mask must be bool'),
        (MASK[0], 'sample', r'got torch.bool \(2, 3\)'),
        (MASK, 'image', "got 'image'"),
    ],
)
def test_bad_arguments_are_named(mask, scope: str, message: str):
    with pytest.raises(ValueError, match=message):
        VisiblePatches(mask, scope)
