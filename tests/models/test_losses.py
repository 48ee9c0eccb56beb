"""Cross entropy with weights of classes, and pixels that do not count."""

from typing import List

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmconvnext import WeightedCrossEntropyLoss

CLASSES = 4
WEIGHTS = [0.5, 1.0, 3.0, 0.0]


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, CLASSES, 5, 6, requires_grad=True)


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(2 * 5 * 6).view(2, 5, 6) % CLASSES


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('ignored', [0, 1, 4])
def test_equals_pytorch(
    ignored: int, dtype: torch.dtype, logits: Tensor, labels: Tensor
) -> None:
    labels[:, :ignored] = 255
    logits = logits.to(dtype)
    ours = WeightedCrossEntropyLoss(WEIGHTS, loss_weight=2.0)(logits, labels)
    weights = torch.tensor(WEIGHTS, dtype=dtype)
    theirs = 2 * F.cross_entropy(logits, labels, weights, ignore_index=255)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        gradient(ours, logits), gradient(theirs, logits)
    )


@pytest.mark.parametrize('sampled', [False, True])
def test_equals_the_hosts(
    sampled: bool, logits: Tensor, labels: Tensor
) -> None:
    from mmseg.models.losses import CrossEntropyLoss

    weight = torch.rand(labels.shape) if sampled else None
    theirs = CrossEntropyLoss(class_weight=WEIGHTS)(logits, labels, weight)
    ours = WeightedCrossEntropyLoss(WEIGHTS)(logits, labels, weight)
    torch.testing.assert_close(ours, theirs)


def test_nothing_counts(logits: Tensor, labels: Tensor) -> None:
    for value in (255, 3):  # ignored, and a class without weight
        loss = WeightedCrossEntropyLoss(WEIGHTS)(logits, labels.fill_(value))
        assert loss.item() == 0
        assert not gradient(loss, logits).any()


def test_sixteen_bits_do_not_overflow(labels: Tensor) -> None:
    logits = torch.full((2, CLASSES, 5, 6), 6e4, dtype=torch.float16)
    logits[:, 0] = -6e4
    loss = WeightedCrossEntropyLoss(WEIGHTS)(logits, labels)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_moves_and_leaves_no_weights_in_a_checkpoint() -> None:
    loss = WeightedCrossEntropyLoss(WEIGHTS)
    assert loss.state_dict() == {}
    assert loss.to('meta').class_weight.device.type == 'meta'
    assert loss.loss_name == 'loss_ce'


@pytest.mark.parametrize(
    'weights', [[-1.0, 1.0], [0.0, 0.0], [float('nan'), 1.0]]
)
def test_wrong_weights(weights: List[float]) -> None:
    with pytest.raises(ValueError, match='0 or more') as error:
        WeightedCrossEntropyLoss(weights)
    assert str(weights) in str(error.value)


def test_another_number_of_classes(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match='3 numbers, the head 4 classes'):
        WeightedCrossEntropyLoss([1.0] * 3)(logits, labels)
