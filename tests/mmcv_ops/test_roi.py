"""RoIAlign and RoIPool are those of their definitions."""

import math

import numpy as np
import pytest
import torch
from operators import DTYPES, close, naive_bilinear, some_boxes

from mmconvnext import mmcv_ops


def naive_roi_align(image, roi, size, scale, ratio, mode, aligned):
    """One box on one (C, H, W) image, sample by sample."""
    _, height, width = image.shape
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (float(v) * scale - shift for v in roi)
    w, h = x2 - x1, y2 - y1
    if not aligned:
        w, h = max(w, 1.0), max(h, 1.0)
    ny = ratio or math.ceil(h / size[0])
    nx = ratio or math.ceil(w / size[1])
    out = image.new_zeros(len(image), *size)
    for p in range(size[0]):
        for q in range(size[1]):
            samples = [
                naive_bilinear(
                    image,
                    y1 + (p + (i + 0.5) / ny) * h / size[0],
                    x1 + (q + (j + 0.5) / nx) * w / size[1],
                )
                for i in range(ny)
                for j in range(nx)
            ]
            if samples:
                stack = torch.stack(samples)
                out[:, p, q] = (
                    stack.mean(0) if mode == 'avg' else stack.amax(0)
                )
            elif mode == 'max':
                out[:, p, q] = -10000
    return out


# Inside, over the border, far outside, no area, the whole image, a sliver.
ROIS = torch.tensor(
    [
        [0, 3.3, 2.1, 30.7, 25.2],
        [1, -9, -5, 8, 9.5],
        [1, 40, 30, 60, 70],
        [0, 5, 5, 5, 5],
        [1, 0, 0, 51, 35],
        [0, -500, -500, -400, -400],
        [1, 1, 7, 50, 9],
    ]
)
roi_modes = pytest.mark.parametrize('mode', ('avg', 'max'))
roi_aligned = pytest.mark.parametrize('aligned', (True, False))
roi_ratio = pytest.mark.parametrize('ratio', (0, 1, 3))


@roi_modes
@roi_aligned
@roi_ratio
@pytest.mark.parametrize(
    'layout', (torch.contiguous_format, torch.channels_last)
)
def test_roi_align_is_the_naive_one(ops, mode, aligned, ratio, layout):
    image = torch.randn(2, 3, 9, 13, dtype=torch.double)
    got = ops.roi_align(
        image.to(memory_format=layout),
        ROIS.double(),
        (3, 2),
        0.25,
        ratio,
        mode,
        aligned,
    )
    wanted = torch.stack(
        [
            naive_roi_align(
                image[int(roi[0])], roi[1:], (3, 2), 0.25, ratio, mode, aligned
            )
            for roi in ROIS.double()
        ]
    )
    close(got, wanted)


@roi_modes
@roi_aligned
@roi_ratio
def test_roi_align_gradient(ops, mode, aligned, ratio):
    image = torch.randn(2, 2, 9, 13, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: ops.roi_align(
            x, ROIS.double(), (3, 2), 0.25, ratio, mode, aligned
        ),
        image,
    )


@pytest.mark.parametrize('budget', (1, 200))
def test_roi_align_does_not_depend_on_the_memory_budget(
    ops, monkeypatch, budget
):
    def run():
        image = torch.randn(
            2, 3, 9, 13, generator=torch.Generator().manual_seed(0)
        )
        image.requires_grad_()
        pooled = ops.roi_align(image, ROIS, (3, 2), 0.25, 0)
        return pooled, torch.autograd.grad(pooled.square().sum(), image)[0]

    wanted = run()
    monkeypatch.setattr(mmcv_ops.roi, 'BUDGET', budget)
    for got, want in zip(run(), wanted):
        close(got, want)


def test_roi_align_refuses_negative_boxes(ops):
    with pytest.raises(RuntimeError, match='negative or NaN'):
        ops.roi_align(
            torch.rand(1, 1, 5, 5), torch.tensor([[0, 3.0, 3.0, 1.0, 1.0]]), 2
        )


@pytest.mark.parametrize('dtype', DTYPES)
def test_roi_align_low_precision(ops, dtype):
    image = torch.randn(2, 3, 9, 13, dtype=dtype)
    got = ops.roi_align(image, ROIS.to(dtype), (3, 2), 0.25, 0)
    close(
        got,
        ops.roi_align(
            image.double(), ROIS.to(dtype).double(), (3, 2), 0.25, 0
        ),
        dtype,
    )


@pytest.mark.parametrize('op', ('roi_align', 'roi_pool'))
def test_roi_operators_without_rois(ops, op):
    image = torch.randn(1, 2, 5, 5, requires_grad=True)
    pooled = getattr(ops, op)(image, torch.zeros(0, 5), (3, 2), 0.25)
    assert pooled.shape == (0, 2, 3, 2)
    assert not torch.autograd.grad(pooled.sum(), image)[0].any()


def test_roi_pool_is_the_naive_one(ops):
    image = torch.randn(2, 3, 9, 13, dtype=torch.double)
    got = ops.roi_pool(image, ROIS.double(), (3, 2), 0.25)
    for roi, pooled in zip(ROIS.tolist(), got):
        x1, y1, x2, y2 = (
            v * 0.25 for v in (roi[1], roi[2], roi[3] + 1, roi[4] + 1)
        )
        for p, q in np.ndindex(3, 2):
            rows, columns = (
                slice(
                    *(
                        min(max(r, 0), n)
                        for r in (
                            math.floor(a + k * (b - a) / bins),
                            math.ceil(a + (k + 1) * (b - a) / bins),
                        )
                    )
                )
                for k, a, b, n, bins in ((p, y1, y2, 9, 3), (q, x1, x2, 13, 2))
            )
            window = image[int(roi[0])][:, rows, columns].flatten(1)
            wanted = window.amax(1) if window.numel() else image.new_zeros(3)
            close(pooled[:, p, q], wanted)


def test_roi_pool_gradient(ops):
    image = torch.randn(2, 2, 9, 13, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: ops.roi_pool(x, ROIS.double(), (3, 2), 0.25), image
    )


def run_roi_align(module, image, rois, size, ratio, mode, aligned):
    shape = (len(rois), image.size(1), *size)
    output, peaks = (
        image.new_zeros(shape),
        image.new_zeros(shape if mode == 0 else 0),
    )
    spec = dict(
        aligned_height=size[0],
        aligned_width=size[1],
        spatial_scale=0.25,
        sampling_ratio=ratio,
        pool_mode=mode,
        aligned=aligned,
    )
    peaks = [peaks, peaks.clone()]
    module.roi_align_forward(image, rois, output, *peaks, **spec)
    grad_input = torch.zeros_like(image)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    module.roi_align_backward(
        grad.to(image.dtype), rois, *peaks, grad_input, **spec
    )
    return output, *peaks, grad_input


@pytest.mark.parametrize(
    'dtype', (torch.float32, torch.float64, torch.float16)
)
@roi_aligned
@roi_ratio
@pytest.mark.parametrize('mode', (0, 1))
@pytest.mark.parametrize('size', ((7, 7), (3, 2)))
def test_roi_align_as_compiled(compiled, dtype, mode, aligned, ratio, size):
    image = torch.randn(2, 5, 9, 13).to(dtype)
    many = torch.cat([torch.randint(0, 2, (60, 1)), some_boxes(60)], 1)
    rois = torch.cat([ROIS, many]).to(dtype)
    wanted, got, exact = (
        run_roi_align(m, image.to(t), rois.to(t), size, ratio, mode, aligned)
        for m, t in (
            (compiled, dtype),
            (mmcv_ops, dtype),
            (mmcv_ops, torch.double),
        )
    )
    for w, g, e in zip(wanted, got, exact):
        if dtype != torch.float16:
            close(g, w)
        # The compiled operator also places its samples in half precision.
        elif g.numel():
            assert (g - e).abs().mean() <= (w - e).abs().mean() + 1e-3
