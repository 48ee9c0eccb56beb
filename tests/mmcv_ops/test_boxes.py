"""NMS, soft NMS and NMS matching are those of their definitions."""

import math

import pytest
import torch
from operators import close, some_boxes

from mmconvnext import mmcv_ops


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
