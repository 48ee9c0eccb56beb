"""The stand-in for mmcv's compiled operators.

Three yardsticks: slow oracles written here from the definition, finite
differences in double precision through mmcv's public functions, and the
compiled operators where they are installed. Then the hosts' own detectors.
"""

import copy
import importlib
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mmconvnext import mmcv_ops

mmcv_ops.install()
ROOT = Path(__file__).resolve().parents[1]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Sums in another order, relative to the largest value; half a unit in the
# last place of the output type.
RELATIVE = {
    torch.float64: 1e-12,
    torch.float32: 4e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 8e-3,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def ops():
    """mmcv.ops served by the stand-in, whatever is installed."""
    with mmcv_ops.standing_in():
        import mmcv.ops

        yield mmcv.ops


@pytest.fixture
def compiled():
    module = mmcv_ops._compiled()
    if module is None:
        pytest.skip('this mmcv has no compiled operators to compare with')
    return module


def close(got, wanted, dtype=None):
    dtype = dtype or wanted.dtype
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 1.0
    scale = max(scale, 1e-6)
    torch.testing.assert_close(
        got.double(), wanted.double(), rtol=0, atol=RELATIVE[dtype] * scale
    )


# ------------------------------------------------------------------ install
def python(code):
    code = f'import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_fresh_process():
    python("""
from mmconvnext import mmcv_ops
assert 'mmcv' not in sys.modules and 'torchvision' not in sys.modules
first = mmcv_ops.install(force=True)
module = sys.modules['mmcv._ext']
assert mmcv_ops.install() == mmcv_ops.install(force=True) == first
assert sys.modules['mmcv._ext'] is module
import importlib.util, mmcv, mmcv._ext, mmcv.ops
assert mmcv._ext is module
assert importlib.util.find_spec('mmcv._ext') is module.__spec__
if sys.version_info < (3, 14):
    from mmcv.utils.ext_loader import check_ops_exist
    assert check_ops_exist()
assert first['source'] == 'stand-in'
assert first['operators']['box_iou_rotated'] == 'unavailable'
assert first['operators']['nms'] in ('torchvision', 'pytorch')
from mmcv.utils import collect_env
assert 'mmconvnext' in collect_env()['MMCV Compiler']
""")


def test_installed_world():
    before = sys.modules['mmcv._ext']
    report = mmcv_ops.install()
    assert sys.modules['mmcv._ext'] is before
    stands_in = isinstance(before, mmcv_ops.StandIn)
    assert report['source'] == ('stand-in' if stands_in else 'compiled')
    assert set(mmcv_ops.OPERATORS) <= set(report['operators'])


def test_every_operator_of_mmcv_has_a_name(ops):
    module = sys.modules['mmcv._ext']
    assert len(mmcv_ops.status()['operators']) > 60
    assert all(hasattr(module, n) for n in mmcv_ops.status()['operators'])
    assert not hasattr(module, '__path__') and not hasattr(module, '_private')


def test_unavailable_operator_raises_when_used(ops):
    with pytest.raises(RuntimeError, match='box_iou_rotated.*onedl-mmcv'):
        ops.box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))


def test_standing_in_is_undone():
    before = sys.modules['mmcv._ext']
    user = importlib.import_module('mmcv.ops.nms')
    with mmcv_ops.standing_in() as module:
        assert user.ext_module is module is sys.modules['mmcv._ext']
    assert user.ext_module is before is sys.modules['mmcv._ext']


def test_no_mmcv(monkeypatch):
    for name in [n for n in sys.modules if n.startswith('mmcv.')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    assert mmcv_ops.status()['source'] == 'missing'
    with pytest.raises(ImportError, match='pip install onedl-mmcv'):
        mmcv_ops.install()


def test_too_late(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet.models.half', ModuleType('half'))
    monkeypatch.delitem(sys.modules, 'mmcv.ops', raising=False)
    with pytest.raises(RuntimeError, match='fresh process'):
        mmcv_ops.install()


def test_broken_compiled_module_is_reported(monkeypatch):
    def broken(name):
        raise ImportError('undefined symbol')

    logged = []
    monkeypatch.setattr(mmcv_ops.importlib, 'import_module', broken)
    monkeypatch.setattr(
        mmcv_ops, 'print_log', lambda text, *args: logged.append(text)
    )
    assert mmcv_ops._compiled() is None
    assert 'undefined symbol' in logged[0]


def test_torchvision_serves_its_rows(monkeypatch):
    """Argument order of the two torchvision operators, by a recorder."""
    calls = {}

    class Recorder:
        def __getattr__(self, name):
            return lambda *args: calls.setdefault(name, args)[0]

    monkeypatch.setattr(mmcv_ops, '_torchvision_fault', str)
    module = mmcv_ops.StandIn()
    assert module.sources['nms'] == 'torchvision'
    monkeypatch.setattr(torch.ops, 'torchvision', Recorder(), raising=False)
    boxes, scores = torch.rand(3, 4), torch.rand(3)
    module.nms(boxes, scores, iou_threshold=0.5, offset=0)
    assert calls['nms'][2] == 0.5
    image, weight = torch.rand(1, 2, 5, 5), torch.rand(2, 2, 3, 3)
    empty, output = torch.empty(0), torch.empty(1, 2, 5, 5)
    module.deform_conv_forward(
        image,
        weight,
        torch.rand(1, 18, 5, 5),
        output,
        empty,
        empty,
        kW=3,
        kH=3,
        dW=2,
        dH=1,
        padW=4,
        padH=3,
        dilationW=6,
        dilationH=5,
        group=7,
        deformable_group=8,
        im2col_step=1,
    )
    assert calls['deform_conv2d'][5:] == (1, 2, 3, 4, 5, 6, 7, 8, False)


# ------------------------------------------------------------------ oracles
def naive_iou(a, b, offset=0):
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = sum(areas) - w * h
    return w * h / union if union else math.nan


def naive_nms(boxes, scores, threshold, offset=0):
    kept = []
    # Equal scores: in the order of torch's sort, as in the compiled operator.
    for i in torch.tensor(scores).sort(descending=True)[1].tolist():
        if not any(
            naive_iou(boxes[k], boxes[i], offset) > threshold for k in kept
        ):
            kept.append(i)
    return kept


def naive_soft_nms(boxes, scores, threshold, sigma, floor, method):
    """With the compiled operator's order among equal scores: the first in a
    list in which the last box takes the place of a dropped one."""
    left, done = [[i, s] for i, s in enumerate(scores)], 0
    while done < len(left):
        best = max(range(done, len(left)), key=lambda j: (left[j][1], -j))
        left[done], left[best] = left[best], left[done]
        place = done + 1
        while place < len(left):
            iou = naive_iou(boxes[left[done][0]], boxes[left[place][0]])
            left[place][1] *= dict(
                naive=float(not iou >= threshold),
                linear=1 - iou if iou >= threshold else 1.0,
                gaussian=math.exp(-iou * iou / sigma),
            )[method]
            if left[place][1] < floor:
                left[place] = left[-1]
                left.pop()
            else:
                place += 1
        done += 1
    return left


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


def some_boxes(count, size=60.0, image=(200.0, 120.0)):
    corner = torch.rand(count, 2) * torch.tensor(image)
    return torch.cat([corner, corner + torch.rand(count, 2) * size], 1)


IDENTICAL = torch.tensor([[3.0, 4.0, 30.0, 20.0]])
BOXES = dict(
    empty=lambda: torch.zeros(0, 4),
    one=lambda: IDENTICAL,
    identical=lambda: IDENTICAL.repeat(7, 1),
    no_area=lambda: IDENTICAL[:, [0, 1, 0, 1]].repeat(5, 1),
    outside=lambda: some_boxes(30) - 150,
    crossing_blocks=lambda: some_boxes(mmcv_ops.boxes.NMS_BLOCK + 13),
    tied=lambda: some_boxes(90),
    chain=lambda: torch.arange(40.0)[:, None] * 3 + IDENTICAL[:, [0, 0, 2, 2]],
    many=lambda: some_boxes(2000),
)


def box_case(name):
    boxes = BOXES[name]()
    scores = torch.rand(len(boxes))
    if name in ('identical', 'no_area'):
        scores[:] = 0.5
    if name == 'tied':
        scores = (scores * 4).ceil() / 4
    if name == 'chain':
        scores = scores.sort(descending=True)[0]
    return boxes, scores


small_boxes = pytest.mark.parametrize(
    'name', [n for n in BOXES if n != 'many']
)
all_boxes = pytest.mark.parametrize('name', BOXES)


@small_boxes
@pytest.mark.parametrize('offset', (0, 1))
def test_nms_is_the_naive_one(ops, name, offset):
    boxes, scores = box_case(name)
    kept = ops.nms(boxes, scores, 0.4, offset=offset)[1]
    wanted = naive_nms(boxes.tolist(), scores.tolist(), 0.4, offset)
    assert kept.tolist() == wanted


@small_boxes
@pytest.mark.parametrize('method', ('naive', 'linear', 'gaussian'))
@pytest.mark.parametrize('floor', (0.02, 0.3))
def test_soft_nms_is_the_naive_one(ops, name, method, floor):
    boxes, scores = box_case(name)
    if name == 'no_area' and method == 'gaussian':
        pytest.skip('0 / 0: NaN scores, in the compiled operator too')
    dets, kept = ops.soft_nms(
        boxes.double(), scores.double(), 0.3, 0.5, floor, method
    )
    wanted = naive_soft_nms(
        boxes.tolist(), scores.double().tolist(), 0.3, 0.5, floor, method
    )
    assert kept.tolist() == [i for i, _ in wanted]
    close(
        dets[:, 4],
        torch.tensor([s for _, s in wanted]).double(),
        torch.float32,
    )


@small_boxes
def test_nms_match_groups_every_box(ops, name):
    boxes, scores = box_case(name)
    groups = ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)
    members = [i for group in groups for i in group.tolist()]
    assert sorted(members) == list(range(len(boxes)))
    heads = [group[0].item() for group in groups]
    for number, group in enumerate(groups):
        for i in group[1:].tolist():
            hits = [
                naive_iou(boxes[h].tolist(), boxes[i].tolist()) >= 0.4
                for h in heads
                if scores[h] >= scores[i]
            ]
            assert hits.index(True) == number


def test_batched_nms_keeps_classes_apart(ops):
    boxes, labels = IDENTICAL.repeat(6, 1), torch.arange(6) % 3
    scores = torch.linspace(0.9, 0.4, 6)
    for cfg in (
        dict(type='nms', iou_threshold=0.5),
        dict(type='nms', iou_threshold=0.5, split_thr=2),
        dict(type='soft_nms', iou_threshold=0.5, min_score=0.5),
    ):
        kept = ops.batched_nms(boxes, scores, labels, cfg)[1]
        assert kept.tolist() == [0, 1, 2], cfg


def test_boxes_at_the_very_threshold(ops):
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    dets = torch.cat([boxes, scores[:, None]], 1)
    assert len(ops.nms_match(dets, 0.5)) == 1
    kept = ops.soft_nms(boxes, scores, 0.5, method='naive')[1]
    assert kept.tolist() == [0]


def test_nms_of_half_precision(ops):
    boxes, scores = box_case('crossing_blocks')
    boxes, scores = boxes.half(), scores.half()
    kept = ops.nms(boxes, scores, 0.4)[1]
    assert (
        kept.tolist()
        == ops.nms(boxes.float(), scores.float(), 0.4)[1].tolist()
    )


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


# -------------------------------------------------------------- focal losses
@pytest.mark.parametrize('weighted', (False, True))
@pytest.mark.parametrize('gamma', (2.0, 1.5))
@pytest.mark.parametrize('kind', ('sigmoid', 'softmax'))
def test_focal_loss(ops, kind, gamma, weighted):
    logits = torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    background = 4 if kind == 'sigmoid' and not weighted else 3
    target = torch.tensor([0, 3, 1, 2, background, 1])
    weight = torch.rand(4, dtype=torch.double) if weighted else None
    loss = getattr(ops, f'{kind}_focal_loss')

    def run(x, reduction='none'):
        return loss(x, target, gamma, 0.25, weight, reduction)

    def both(x):
        return run(x, 'mean'), run(x, 'sum')

    hot = torch.nn.functional.one_hot(target, 5)[:, :4].bool()
    p = logits.sigmoid() if kind == 'sigmoid' else logits.softmax(1)
    each = -0.25 * (1 - p) ** gamma * p.log()
    if kind == 'sigmoid':
        wanted = torch.where(hot, each, -0.75 * p**gamma * (1 - p).log())
        wanted = wanted * (weight[target][:, None] if weighted else 1)
    else:
        wanted = each[hot] * (weight[target] if weighted else 1)
    close(run(logits), wanted)
    assert torch.autograd.gradcheck(both, logits)


@pytest.mark.parametrize('dtype', DTYPES)
def test_focal_loss_of_huge_logits_is_finite(ops, dtype):
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], dtype=dtype)
    logits.requires_grad_()
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 2]))
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.parametrize('kind', ('sigmoid', 'softmax'))
def test_focal_loss_without_samples(ops, kind):
    logits = torch.zeros(0, 4, requires_grad=True)
    if kind == 'softmax':
        logits = torch.zeros(0, 4)
    loss = getattr(ops, f'{kind}_focal_loss')
    assert loss(logits, torch.zeros(0).long(), 2.0, 0.25, None, 'sum') == 0


# ---------------------------------------------------------------- deformable
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


# ---------------------------------------------------- against the compiled
@all_boxes
@pytest.mark.parametrize('offset', (0, 1))
def test_boxes_as_compiled(compiled, name, offset):
    boxes, scores = box_case(name)
    for threshold in (0.0, 0.3, 0.7):
        both = [
            m.nms(boxes, scores, iou_threshold=threshold, offset=offset)
            for m in (compiled, mmcv_ops)
        ]
        assert torch.equal(*both)
    if not len(boxes):
        return
    dets = torch.cat([boxes, scores[:, None]], 1)
    assert compiled.nms_match(dets, 0.4) == mmcv_ops.nms_match(dets, 0.4)


@all_boxes
@pytest.mark.parametrize('method', (0, 1, 2))
@pytest.mark.parametrize('floor', (0.001, 0.3))
def test_soft_nms_as_compiled(compiled, name, method, floor):
    boxes, scores = box_case(name)
    results = []
    for module in (compiled, mmcv_ops):
        dets = torch.empty(len(boxes), 5)
        kept = module.softnms(
            boxes,
            scores,
            dets,
            iou_threshold=0.3,
            sigma=0.5,
            min_score=floor,
            method=method,
            offset=0,
        )
        results.append((kept, dets[: len(kept)]))
    assert torch.equal(results[0][0], results[1][0])
    # exp of the two libraries differs in the last place, once per pick.
    torch.testing.assert_close(
        results[0][1], results[1][1], rtol=1e-5, atol=1e-6, equal_nan=True
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


# -------------------------------------------------------- the hosts' models
SMALL = dict(
    depth=18,
    num_classes=3,
    num_things_classes=3,
    num_stuff_classes=0,
    num_queries=10,
    nms_pre=50,
    max_per_img=20,
    max_per_image=20,
    num_points=64,
)
DETECTORS = (
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
)


def shrink(node):
    """A config of the host with a tiny backbone and few boxes."""
    if isinstance(node, (list, tuple)):
        if list(node) == [256, 512, 1024, 2048]:
            return [64, 128, 256, 512]
        return type(node)(shrink(v) for v in node)
    if not isinstance(node, dict):
        return node
    node = {k: shrink(v) for k, v in node.items() if k != 'init_cfg'}
    if node.get('type') == 'SyncBN':
        node['type'] = 'BN'
    if 'class_weight' in node:
        node['class_weight'] = [1.0] * 3 + [0.1]
    if 'transformer_decoder' in node:
        node['transformer_decoder']['num_layers'] = 2
        node['num_transformer_feat_level'] = 3
    if 'depth' in node:
        node.update(frozen_stages=-1, norm_eval=False)
    return {
        k: SMALL.get(k, v) if isinstance(v, int) else v
        for k, v in node.items()
    }


def config_of(host, path):
    from mmengine.config import Config, ConfigDict

    spec = importlib.util.find_spec(host)
    if spec is None:
        pytest.skip(f'{host} is not installed')
    file = Path(spec.origin).parent / '.mim' / 'configs' / path
    if not file.exists():
        pytest.skip(f'this {host} carries no configs')
    return ConfigDict(shrink(Config.fromfile(file).model.to_dict()))


def check_step(model, losses):
    loss = sum(
        sum(v) if isinstance(v, list) else v
        for k, v in losses.items()
        if 'loss' in k
    )
    loss.backward()
    grads = [p.grad for p in model.backbone.parameters() if p.requires_grad]
    assert loss.isfinite()
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads)


@pytest.mark.parametrize('path', DETECTORS)
def test_detector_trains_and_predicts(ops, path):
    config = config_of('mmdet', path)
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config['data_preprocessor'].pop('batch_augments', None)
    model = MODELS.build(config)
    model.init_weights()
    inputs = demo_mm_inputs(
        2,
        [[3, 96, 128], [3, 64, 96]],
        num_items=[2, 3],
        num_classes=3,
        with_mask='mask' in path,
    )
    data = model.data_preprocessor(copy.deepcopy(inputs), True)
    check_step(model, model.train().loss(*data.values()))
    with torch.no_grad():
        data = model.data_preprocessor(inputs, False)
        results = model.eval().predict(*data.values())
    assert all('bboxes' in r.pred_instances for r in results)


def test_upernet_trains_and_predicts(ops):
    config = config_of('mmseg', '_base_/models/upernet_r50.py')
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config['auxiliary_head']['in_channels'] = 256
    for head in ('decode_head', 'auxiliary_head'):
        config[head]['channels'] = 16
    config['data_preprocessor']['size'] = (64, 96)
    model = MODELS.build(config)
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 96)))
    )
    sample.set_metainfo(dict(img_shape=(64, 96), ori_shape=(64, 96)))
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 96)).byte()] * 2,
        data_samples=[sample, copy.deepcopy(sample)],
    )
    data = model.data_preprocessor(data, True)
    check_step(model, model.train().loss(**data))
    with torch.no_grad():
        assert len(model.eval().predict(**data)) == 2
