"""Deformable attention, and the masks of PSANet."""

import pytest
import torch
from operators import close

from mmconvnext import mmcv_ops


def test_attention(ops):
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    value = torch.randn(2, 26, 2, 3, dtype=torch.double)
    # Beyond [0, 1]: points outside the maps.
    places = torch.rand(2, 3, 2, 2, 2, 2, dtype=torch.double) * 1.4 - 0.2
    weights = torch.rand(2, 3, 2, 2, 2, dtype=torch.double)
    inputs = [x.requires_grad_() for x in (value, places, weights)]

    def run(value, places, weights):
        return MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, places, weights, 64
        )

    close(
        run(*inputs),
        multi_scale_deformable_attn_pytorch(value, shapes, places, weights),
    )
    assert torch.autograd.gradcheck(run, inputs)


def naive_psa(masks, collect, size, half):
    """Entry by entry: where the mask around (h, w) covers (y, x)."""
    n, _, height, width = masks.shape
    masks = masks.view(n, *size, height, width)
    full = masks.new_zeros(n, height, width, height, width)
    for h in range(height):
        for w in range(width):
            for y in range(height):
                for x in range(width):
                    i, j = y - h + half[0], x - w + half[1]
                    if 0 <= i < size[0] and 0 <= j < size[1]:
                        full[:, h, w, y, x] = masks[:, i, j, h, w]
    if collect:
        full = full.permute(0, 3, 4, 1, 2)
    return full.reshape(n, height * width, height, width)


# Larger than the map, as PSANet's are; smaller; even, so that the half is not
# the middle.
MASKS = ((9, 7), (3, 1), (2, 4))


@pytest.mark.parametrize('size', MASKS)
@pytest.mark.parametrize('kind', ('collect', 'distribute'))
def test_psa_mask(ops, kind, size):
    masks = torch.randn(2, size[0] * size[1], 5, 4, dtype=torch.double)
    half = [(side - 1) // 2 for side in size]
    module = ops.PSAMask(kind, size)
    wanted = naive_psa(masks, kind == 'collect', size, half)
    assert torch.equal(module(masks), wanted)
    assert torch.autograd.gradcheck(module, masks.requires_grad_())


@pytest.mark.parametrize('size', MASKS)
@pytest.mark.parametrize('kind', ('collect', 'distribute'))
def test_psa_mask_as_compiled(compiled, kind, size):
    import mmcv.ops

    masks = torch.randn(2, size[0] * size[1], 5, 4, requires_grad=True)

    def run():
        output = mmcv.ops.PSAMask(kind, size)(masks)
        grad = torch.arange(float(output.numel())).view_as(output)
        return output, *torch.autograd.grad(output, masks, grad)

    wanted = run()
    with mmcv_ops.standing_in():
        got = run()
    assert all(torch.equal(g, w) for g, w in zip(got, wanted))
