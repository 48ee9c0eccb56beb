"""Deformable pooling of regions."""

import math

import pytest
import torch
from operators import close, naive_bilinear

SIZE = (3, 2)
ROIS = torch.tensor(
    [
        [0, 4.0, 2.0, 30.0, 21.0],
        [1, -6.0, -3.0, 11.0, 50.0],  # beyond the map
        [1, 8.0, 8.0, 8.0, 8.0],  # empty
        [0, 20.0, 9.0, 12.0, 30.0],  # corners swapped
        [0, 4.5, 2.5, 30.5, 21.5],  # as many samples as the first
    ],
    dtype=torch.double,
)


def naive_pool(image, roi, offset, scale, ratio, gamma):
    """One region, sample by sample, as in mmcv's CUDA kernel."""
    x1, y1, x2, y2 = (float(v) * scale - 0.5 for v in roi[1:])
    h, w = y2 - y1, x2 - x1
    ny = ratio or max(math.ceil(h / SIZE[0]), 0)
    nx = ratio or max(math.ceil(w / SIZE[1]), 0)
    out = image.new_zeros(len(image), *SIZE)
    for p in range(SIZE[0]):
        for q in range(SIZE[1]):
            dx, dy = offset[0, p, q] * gamma * w, offset[1, p, q] * gamma * h
            samples = [
                naive_bilinear(
                    image,
                    y1 + float(dy) + (p + (i + 0.5) / ny) * h / SIZE[0],
                    x1 + float(dx) + (q + (j + 0.5) / nx) * w / SIZE[1],
                )
                for i in range(ny)
                for j in range(nx)
            ]
            if samples:
                out[:, p, q] = torch.stack(samples).mean(0)
    return out


@pytest.mark.parametrize('shifted', (False, True))
@pytest.mark.parametrize('ratio', (0, 2))
def test_deform_pool(ops, ratio, shifted):
    image = torch.randn(2, 3, 7, 9, dtype=torch.double)
    offset = torch.randn(len(ROIS), 2, *SIZE, dtype=torch.double) * shifted
    pool = ops.DeformRoIPool(SIZE, 0.25, ratio, 0.3)
    got = pool(image, ROIS, offset if shifted else None)
    for out, roi, shift in zip(got, ROIS, offset):
        of = image[int(roi[0])]
        close(out, naive_pool(of, roi, shift, 0.25, ratio, 0.3))


@pytest.mark.parametrize('ratio', (0, 2))
def test_deform_pool_gradients(ops, ratio):
    image = torch.randn(2, 3, 7, 9, dtype=torch.double, requires_grad=True)
    offset = torch.randn(len(ROIS), 2, *SIZE, dtype=torch.double)
    offset.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, o: ops.deform_roi_pool(x, ROIS, o, SIZE, 0.25, ratio, 0.3),
        (image, offset),
    )
    assert torch.autograd.gradcheck(
        lambda x: ops.deform_roi_pool(x, ROIS, None, SIZE, 0.25, ratio, 0.3),
        (image,),
    )


@pytest.mark.parametrize(
    'name', ('DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack')
)
def test_the_packs_train(ops, name):
    pool = getattr(ops, name)(SIZE, 4, 16, 0.25, 2).double()
    image = torch.randn(2, 4, 7, 9, dtype=torch.double, requires_grad=True)
    out = pool(image, ROIS)
    assert out.shape == (len(ROIS), 4, *SIZE)
    out.square().sum().backward()
    assert image.grad.isfinite().all() and image.grad.any()
    assert pool.offset_fc[-1].weight.grad.any()
