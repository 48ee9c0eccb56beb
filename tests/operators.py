"""Tolerances and boxes for the tests of mmcv_ops."""

import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Sums in another order, relative to the largest value; half a unit in the
# last place of the output type.
RELATIVE = {
    torch.float64: 1e-12,
    torch.float32: 4e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 8e-3,
}


def close(got, wanted, dtype=None):
    dtype = dtype or wanted.dtype
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 1.0
    scale = max(scale, 1e-6)
    torch.testing.assert_close(
        got.double(), wanted.double(), rtol=0, atol=RELATIVE[dtype] * scale
    )


def some_boxes(count, size=60.0, image=(200.0, 120.0)):
    corner = torch.rand(count, 2) * torch.tensor(image)
    return torch.cat([corner, corner + torch.rand(count, 2) * size], 1)


def naive_bilinear(image, y, x):
    _, height, width = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return image.new_zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    t, u = int(y), int(x)
    b, v = min(t + 1, height - 1), min(u + 1, width - 1)
    y, x = y - t, x - u
    return (
        image[:, t, u] * (1 - y) * (1 - x)
        + image[:, t, v] * (1 - y) * x
        + image[:, b, u] * y * (1 - x)
        + image[:, b, v] * y * x
    )
