"""Deformable convolution and masked convolution."""

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


def larger(x):
    """A larger map whose first values are those of ``x``."""
    n, c, h, w = x.shape
    flat = torch.randn(n, c * (h + 3) * (w + 1), dtype=x.dtype)
    flat[:, : c * h * w] = x.detach().flatten(1)
    return flat.view(n, c, h + 3, w + 1).requires_grad_()


def test_modulated_offsets_of_a_larger_map_are_read_from_the_start(ops):
    """What DyHead and GLIP do; the values past the end have gradient 0."""
    x, offset, mask, weight, bias = deform_inputs()
    wanted = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *WALK)
    big = larger(offset), larger(mask)
    got = ops.modulated_deform_conv2d(x, *big, weight, bias, *WALK)
    assert torch.equal(got, wanted)
    grad = torch.randn_like(got)
    exact = torch.autograd.grad(wanted, (offset, mask), grad)
    for full, part in zip(torch.autograd.grad(got, big, grad), exact):
        used = part[0].numel()
        assert torch.equal(full.flatten(1)[:, :used], part.flatten(1))
        assert not full.flatten(1)[:, used:].any()


@pytest.mark.parametrize('name', ('offset', 'mask'))
def test_modulated_offsets_of_a_smaller_map_are_refused(ops, name):
    """The compiled operator reads beyond the end of their memory."""
    x, offset, mask, weight, bias = deform_inputs()
    small = dict(offset=offset, mask=mask)
    small[name] = small[name][:, :, :-1]
    with pytest.raises(RuntimeError, match=rf'{name} of shape .*smaller'):
        ops.modulated_deform_conv2d(x, *small.values(), weight, bias, *WALK)


def test_plain_offsets_must_have_the_size_of_the_output(ops):
    x, offset, _, weight, _ = deform_inputs()
    with pytest.raises(RuntimeError, match=r'shape \(2, 36, 4, 3\), got'):
        ops.deform_conv2d(x, larger(offset), weight, *WALK)


def test_masked_conv(ops):
    conv = ops.MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    image, mask = torch.randn(1, 3, 7, 9), torch.rand(1, 7, 9) > 0.5
    with torch.no_grad():
        close(conv(image, mask), conv(image) * mask)
        assert not conv(image, torch.zeros_like(mask)).any()


@pytest.mark.parametrize('size', ('equal', 'larger'))
@pytest.mark.parametrize('scale', (0.0, 2.0, 30.0))
@pytest.mark.parametrize('op', ('deform_conv2d', 'modulated_deform_conv2d'))
def test_deform_conv_as_compiled(compiled, op, scale, size):
    import mmcv.ops

    inputs = deform_inputs(scale, torch.float32)
    if op == 'deform_conv2d' and size == 'larger':
        pytest.skip('refused by both')
    if size == 'larger':
        inputs[1:3] = map(larger, inputs[1:3])
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
