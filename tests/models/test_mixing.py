"""Mixup and CutMix: equal to timm's, and what they are."""

from typing import Tuple

import numpy as np
import pytest
import torch
from imports import import_zoo
from torch import Tensor

from mmconvnext.models.mixing import Mixing, window

SETTINGS = [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.3, 0.3)]


def batch(size: int = 6, classes: int = 5) -> Tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(size, 3, 20, 28)
    labels = torch.randint(classes, (size,))
    return images, labels, torch.nn.functional.one_hot(labels, classes).float()


@pytest.mark.parametrize('prob', [1.0, 0.5])
@pytest.mark.parametrize(('mixup', 'cutmix'), SETTINGS)
def test_a_batch_is_mixed_as_timm_mixes_it(
    mixup: float, cutmix: float, prob: float
) -> None:
    theirs = import_zoo('timm.data').Mixup(
        mixup, cutmix, prob=prob, label_smoothing=0.0, num_classes=5
    )
    for seed in range(20):
        images, labels, targets = batch()
        np.random.seed(seed)
        expected, soft = theirs(images.clone(), labels)
        np.random.seed(seed)
        found, rows = Mixing(mixup, cutmix, prob)(images, targets)
        torch.testing.assert_close(rows, soft, rtol=0, atol=1e-6)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(('mixup', 'cutmix'), SETTINGS)
def test_targets_say_how_much_of_each_image_is_there(
    mixup: float, cutmix: float
) -> None:
    # Images of one value each: their mean is the weight of the first.
    images = torch.stack([torch.zeros(1, 16, 24), torch.ones(1, 16, 24)])
    targets = torch.eye(2)
    weights = []
    for seed in range(40):
        np.random.seed(seed)
        found, rows = Mixing(mixup, cutmix)(images, targets)
        torch.testing.assert_close(found.mean((1, 2, 3)), rows[:, 1])
        torch.testing.assert_close(rows.sum(1), torch.ones(2))
        binary = ((found == 0) | (found == 1)).all()
        assert binary or mixup
        weights.append(float(rows[0, 0]))
    assert np.std(weights) > 0.15
    assert float(images[0].sum()) == 0  # left as they were


def test_shares_of_batches() -> None:
    images, _, targets = batch()
    for share, kinds in ((0.0, {False}), (1.0, {True}), (0.5, {True, False})):
        found = set()
        for seed in range(20):
            np.random.seed(seed)
            mixed, _ = Mixing(0.8, 1.0, cutmix_share=share)(images, targets)
            same = (mixed == images) | (mixed == images.flip(0))
            found.add(bool(same.all()))
        assert found == kinds


def test_prob_is_that_of_a_batch() -> None:
    images, _, targets = batch()
    np.random.seed(0)
    assert Mixing(0.8, 0.0, prob=0.0)(images, targets)[0] is images
    mixed = [
        Mixing(0.8, 0.0, prob=0.3)(images, targets)[0] is not images
        for _ in range(300)
    ]
    assert 60 < sum(mixed) < 120


def test_window_is_cut_off_at_the_border() -> None:
    np.random.seed(0)
    for share in (0.0, 0.3, 1.0):
        for _ in range(50):
            rows, columns = window(10, 30, share)
            assert 0 <= rows.start <= rows.stop <= 10
            assert 0 <= columns.start <= columns.stop <= 30
            assert rows.stop - rows.start <= 10 * share**0.5 + 1e-9


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(mixup=-1), 'mixup and cutmix must be 0 or more'),
        (dict(mixup=0, cutmix=0), 'one above 0'),
        (dict(prob=2), r'prob must be in \[0, 1\], got 2'),
        (dict(cutmix_share=-0.5), 'cutmix_share must be in'),
    ],
)
def test_bad_options_raise(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Mixing(**options)
