"""RandAugment against timm's operations, colour jitter, erasing, crops."""

import random

import numpy as np
import pytest
import torch
from imports import import_zoo
from labelled import image
from PIL import Image

from mmconvnext import (
    ColorJitter,
    ErasingDataPreprocessor,
    RandAugment,
    ResizedCenterCrop,
)
from mmconvnext.training import rand_augment
from mmconvnext.training.rand_augment import OPERATIONS

FILL = (124, 116, 104)
# operations whose names differ in timm
THEIRS = dict(
    Posterize='PosterizeIncreasing',
    Solarize='SolarizeIncreasing',
    Color='ColorIncreasing',
    Contrast='ContrastIncreasing',
    Brightness='BrightnessIncreasing',
    Sharpness='SharpnessIncreasing',
    TranslateX='TranslateXRel',
    TranslateY='TranslateYRel',
)


@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('magnitude', [0.0, 3.3, 9.0, 10.0])
@pytest.mark.parametrize('name', OPERATIONS)
def test_an_operation_is_that_of_timm(
    name: str, magnitude: float, turned: bool, monkeypatch
) -> None:
    import_zoo('timm.data')
    from timm.data import auto_augment as timm

    monkeypatch.setattr(
        rand_augment, 'signed', lambda value: -value if turned else value
    )
    monkeypatch.setattr(random, 'random', lambda: 1.0 if turned else 0.0)
    picture = Image.fromarray(image(3))
    theirs = timm.AugmentOp(
        THEIRS.get(name, name),
        prob=1.0 if not turned else 2.0,
        # timm asks Pillow for 0 bits at 10, which it refuses
        magnitude=min(magnitude, 9.9) if name == 'Posterize' else magnitude,
        hparams=dict(
            img_mean=FILL, translate_pct=0.45, interpolation=Image.BICUBIC
        ),
    )
    expected = np.array(theirs(picture))
    found = np.array(OPERATIONS[name](picture, magnitude / 10, FILL))
    np.testing.assert_array_equal(found, expected)


def test_every_operation_of_the_recipe_is_there() -> None:
    import_zoo('timm.data')
    from timm.data import auto_augment as timm

    names = {THEIRS.get(name, name) for name in OPERATIONS}
    assert names == set(timm._RAND_INCREASING_TRANSFORMS)


def test_operations_are_drawn_as_often_as_asked(monkeypatch) -> None:
    drawn = []
    table = {
        name: lambda picture, share, fill, name=name: (
            drawn.append((name, share)) or picture
        )
        for name in OPERATIONS
    }
    monkeypatch.setattr(rand_augment, 'OPERATIONS', table)
    np.random.seed(0)
    step = RandAugment(num_ops=3, magnitude=9, magnitude_std=0.5, prob=0.5)
    for _ in range(400):
        step(dict(img=image(0)))
    assert len(drawn) == pytest.approx(600, abs=60)
    assert {name for name, _ in drawn} == set(OPERATIONS)
    shares = np.array([share for _, share in drawn])
    assert shares.max() <= 1
    assert shares.mean() == pytest.approx(0.9, abs=0.02)
    assert shares.std() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize('step', [RandAugment(prob=1.0), ColorJitter()])
def test_pictures_stay_pictures_and_change(step) -> None:
    np.random.seed(1)
    before = image(0)
    kept = before.copy()
    pictures = [step(dict(img=before[:, ::-1]))['img'] for _ in range(8)]
    assert all(p.shape == before.shape for p in pictures)
    assert all(p.dtype == np.uint8 for p in pictures)
    assert len({p.tobytes() for p in pictures}) > 4
    np.testing.assert_array_equal(before, kept)


def test_jitter_of_nothing_changes_nothing() -> None:
    found = ColorJitter(0, 0, 0)(dict(img=image(0)))['img']
    np.testing.assert_array_equal(found, image(0))


def test_jitter_keeps_to_its_range() -> None:
    np.random.seed(0)
    grey = np.full((4, 4, 3), 100, np.uint8)
    step = ColorJitter(brightness=0.2, contrast=0, saturation=0)
    means = [step(dict(img=grey))['img'].mean() for _ in range(200)]
    assert 79 <= min(means) < 83
    assert 117 < max(means) <= 121


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: RandAugment(magnitude=11), r'in \[0, 10\], got 11'),
        (lambda: RandAugment(num_ops=-1), 'num_ops and magnitude_std'),
        (lambda: RandAugment(prob=3), r'prob in \[0, 1\]'),
        (lambda: ColorJitter(brightness=-1), 'must be 0 or more'),
        (lambda: ResizedCenterCrop(crop_ratio=0), r'in \(0, 1\], got 0'),
        (
            lambda: ErasingDataPreprocessor(erase_prob=2),
            r'erase_prob must be in \[0, 1\]: 2',
        ),
    ],
)
def test_bad_options_raise(make, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize('size', [(48, 64), (64, 48), (37, 91), (300, 200)])
@pytest.mark.parametrize(
    ('scale', 'ratio'), [(32, 0.875), (48, None), (24, 1)]
)
def test_crop_is_torchvisions(size: tuple, scale: int, ratio) -> None:
    zoo = import_zoo('torchvision.transforms')
    short = (scale, scale) if ratio is None else int(scale / ratio)
    bicubic = zoo.InterpolationMode.BICUBIC
    steps = [zoo.Resize(short, bicubic), zoo.CenterCrop(scale)]
    expected = Image.fromarray(image(0, size))
    for step in steps:
        expected = step(expected)
    found = ResizedCenterCrop(scale, ratio)(dict(img=image(0, size)))
    np.testing.assert_array_equal(found['img'], np.array(expected))
    assert found['img_shape'] == (scale, scale)


def test_erasing_is_noise_in_rectangles() -> None:
    step = ErasingDataPreprocessor(
        mean=[100.0] * 3, std=[50.0] * 3, erase_prob=1.0
    )
    grey = torch.full((3, 40, 60), 150, dtype=torch.uint8)
    np.random.seed(0)
    shares = []
    for _ in range(60):
        data = step(dict(inputs=[grey, grey]), training=True)
        for picture in data['inputs']:
            changed = (picture != 1.0).all(0)
            rows, columns = changed.any(1), changed.any(0)
            assert int(rows.sum() * columns.sum()) == int(changed.sum())
            shares.append(float(changed.float().mean()))
            noise = picture[:, changed]
            if noise.numel() > 300:
                assert abs(float(noise.mean())) < 0.4
                assert float(noise.std()) == pytest.approx(1, abs=0.25)
    assert 0 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.35


def test_erasing_is_for_some_and_for_training() -> None:
    grey = torch.full((3, 40, 60), 150, dtype=torch.uint8)
    step = ErasingDataPreprocessor(
        mean=[100.0] * 3, std=[50.0] * 3, erase_prob=0.25
    )
    np.random.seed(0)
    batch = dict(inputs=[grey] * 400)
    assert bool((step(batch)['inputs'] == 1).all())
    found = step(dict(inputs=[grey] * 400), training=True)['inputs']
    erased = int((found != 1).any(1).any(1).any(1).sum())
    assert erased == pytest.approx(100, abs=30)
