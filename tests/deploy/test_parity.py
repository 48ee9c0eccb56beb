"""When detections of a file are those of PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.structures import InstanceData

from mmconvnext.deploy import parity
from mmconvnext.deploy.runner import Detections

COUNT = 5
# Two of these are equal to rounding.
SCORES = np.array([0.9, 0.5, 0.499999, 0.4, 0.3], np.float32)
LIMITS = parity.LIMITS['detection']['fp32']


def found(order: list) -> dict:
    """Detections in an order."""
    boxes = 10 * np.arange(4 * COUNT, dtype=np.float32).reshape(COUNT, 4)
    masks = np.eye(COUNT, 64, dtype=bool).reshape(COUNT, 8, 8)
    labels = np.array([0, 1, 1, 0, 1])
    rows = dict(boxes=boxes, scores=SCORES, labels=labels, masks=masks)
    return {name: value[order] for name, value in rows.items()}


def differences(result: dict) -> dict:
    rows = found(list(range(COUNT)))
    boxes = rows.pop('boxes')
    sample = SimpleNamespace(pred_instances=InstanceData(**rows))
    sample.pred_instances.bboxes = boxes
    return parity.objects(sample, Detections(**result), 'fp32')


def fits(values: dict) -> bool:
    return all(values[name] <= limit for name, limit in LIMITS.items())


def test_the_same() -> None:
    values = differences(found([0, 1, 2, 3, 4]))
    assert fits(values) and not any(values.values())


def test_equal_scores_may_change_places() -> None:
    values = differences(found([0, 2, 1, 3, 4]))
    assert fits(values) and values['moved'] == 2


def other_class() -> dict:
    result = found([0, 2, 1, 3, 4])
    result['labels'][1] = 0
    return result


OTHERS = {
    'another order': lambda: found([0, 1, 2, 4, 3]),
    'one less': lambda: found([0, 1, 2, 3]),
    'another class': other_class,
    'one twice': lambda: found([0, 1, 1, 3, 4]),
}


@pytest.mark.parametrize('name', OTHERS)
def test_others_are_not(name: str) -> None:
    assert not fits(differences(OTHERS[name]()))
