"""Deformable convolution and attention, and masked convolution."""

import pytest
import torch
from operators import close

from mmconvnext import mmcv_ops


def deform_inputs(offset_scale=2.0, dtype=torch.double):
    """Two groups, two offset groups, stride and dilation, not square."""
    shapes = ((2, 4, 7, 6), (2, 36, 4, 3), (2, 18, 4, 3), (6, 2, 3, 3), (6,))
    inputs = [torch.randn(shape, dtype=torch.double) for shape in shapes]
    inputs[1] *= offset_scale
    inputs[2] = inputs[2].sigmoid()
    return [x.to(dtype).requires_grad_() for x in inputs]


WALK = (2, 1, 1, 2, 2)  # stride, padding, dilation, groups, offset groups


def test_deform_conv_with_no_offset_is_a_convolution(ops):
    x, offset, mask, weight, bias = deform_inputs(0.0)
    wanted = torch.nn.functional.conv2d(x, weight, None, 2, 1, 1, 2)
    close(ops.deform_conv2d(x, offset, weight, *WALK), wanted)
    half = ops.modulated_deform_conv2d(
        x, offset, torch.full_like(mask, 0.5), weight, bias, *WALK
    )
    close(half, wanted / 2 + bias.view(-1, 1, 1))


def test_deform_conv_with_whole_offsets_shifts_the_image(ops):
    x, _, _, weight, _ = deform_inputs()
    offset = torch.zeros(2, 18, 7, 6, dtype=torch.double)
    offset[:, 0::2], offset[:, 1::2] = 1, -2
    shifted = torch.nn.functional.pad(x, (2, 0, 0, 1))[:, :, 1:, :6]
    shifted = torch.nn.functional.pad(shifted, (1, 1, 1, 1))
    wanted = torch.nn.functional.conv2d(shifted, weight, None, 1, 0, 1, 2)
    got = ops.deform_conv2d(x, offset, weight, 1, 1, 1, 2, 1)
    close(got[:, :, 1:-1, 3:-1], wanted[:, :, 1:-1, 3:-1])


def test_deform_conv_gradients(ops):
    x, offset, mask, weight, bias = deform_inputs()
    assert torch.autograd.gradcheck(
        lambda *t: ops.deform_conv2d(*t, *WALK), (x, offset, weight)
    )
    assert torch.autograd.gradcheck(
        lambda *t: ops.modulated_deform_conv2d(*t, *WALK),
        (x, offset, mask, weight, bias),
    )
    assert torch.autograd.gradcheck(
        lambda *t: ops.modulated_deform_conv2d(*t, None, *WALK),
        (x, offset, mask, weight),
    )


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


def test_masked_conv(ops):
    conv = ops.MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    image, mask = torch.randn(1, 3, 7, 9), torch.rand(1, 7, 9) > 0.5
    with torch.no_grad():
        close(conv(image, mask), conv(image) * mask)
        assert not conv(image, torch.zeros_like(mask)).any()


@pytest.mark.parametrize('scale', (0.0, 2.0, 30.0))
@pytest.mark.parametrize('op', ('deform_conv2d', 'modulated_deform_conv2d'))
def test_deform_conv_as_compiled(compiled, op, scale):
    import mmcv.ops

    inputs = deform_inputs(scale, torch.float32)
    if op == 'deform_conv2d':
        inputs = [inputs[i] for i in (0, 1, 3)]

    def run():
        output = getattr(mmcv.ops, op)(*inputs, *WALK)
        seed = torch.Generator().manual_seed(1)
        grad = torch.randn(output.shape, generator=seed)
        return output, *torch.autograd.grad(output, inputs, grad)

    wanted = run()
    with mmcv_ops.standing_in():
        got = run()
    for g, w in zip(got, wanted):
        close(g, w)
