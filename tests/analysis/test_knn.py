"""Nearest neighbours against their definition, on features and images."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch
from backbones import both, micro
from labelled import write
from torch import Tensor, nn

from mmconvnext import FCMAE, ConvNeXtV2, ImageClassifier
from mmconvnext.analysis import class_images, knn
from mmconvnext.files import read_image

NAMES = ('brown', 'green', 'pink')


def draw(root: Path, part: str, count: int, names: tuple = NAMES) -> None:
    """Noise around a colour for each class, of several sizes."""
    for k, name in enumerate(names):
        for i in range(count):
            rng = np.random.default_rng([k, i, len(part)])
            noise = rng.integers(0, 120, (40 + 3 * i, 52 - k, 3))
            picture = np.clip(noise + 60 * (np.arange(3) == k), 0, 255)
            write(root / part / name / f'{i}.png', picture.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / 'data', 'train', 5)
    draw(tmp_path / 'data', 'val', 3)
    return tmp_path / 'data'


def settings(folder: Path, **options: Any) -> class_images.Settings:
    small = dict(size=32, k=(1, 3), num_workers=0, batch_size=4)
    return class_images.Settings(str(folder), **{**small, **options})


def plain(
    bank: Tensor, labels: Tensor, query: Tensor, k: int, temperature: float
) -> Dict[int, float]:
    """DINO's vote, one image at a time, in Python's own numbers."""
    cosines = [math.fsum((row * query).tolist()) for row in bank.double()]
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]
    sums: Dict[int, float] = {}
    for i in order:
        vote = math.exp(cosines[i] / temperature)
        label = int(labels[i])
        sums[label] = sums.get(label, 0.0) + vote
    return sums


def random_features(count: int, classes: int, seed: int) -> knn.Features:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, 6, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return knn.Features(vectors / vectors.norm(dim=1)[:, None], labels, {})


@pytest.mark.parametrize('temperature', [0.07, 1.0, 0.01])
@pytest.mark.parametrize(('rows', 'columns'), [(7, 5), (100, 1000), (1, 1)])
def test_blocks_vote_as_the_definition_says(
    monkeypatch, temperature: float, rows: int, columns: int
) -> None:
    train, val = random_features(83, 9, 1), random_features(41, 9, 2)
    nearest = knn.nearest
    monkeypatch.setattr(
        knn, 'nearest', lambda *args: nearest(*args, columns=columns)
    )
    ks = (1, 4, 20, 83)
    found = knn.score(train, val, 9, ks, temperature, rows=rows)
    for k in ks:
        hits = {1: 0, 5: 0}
        for query, label in zip(val.vectors.double(), val.labels.tolist()):
            sums = plain(train.vectors, train.labels, query, k, temperature)
            ranked = sorted(sums, key=lambda c: -sums[c])
            for top in hits:
                hits[top] += label in ranked[:top]
        expected = {f'top{n}': 100 * hit / 41 for n, hit in hits.items()}
        assert found[k] == pytest.approx(expected), k
    assert found[1] != found[83]


def test_a_neighbour_votes_by_its_likeness() -> None:
    """Two that are alike outvote three that are less so, at a low T."""
    cosines = torch.tensor([[0.9, 0.8, 0.5, 0.5, 0.5]])
    labels = torch.tensor([[1, 1, 0, 0, 0]])
    for temperature, winner in ((0.07, 1), (10.0, 0), (1e-4, 1)):
        sums = knn.votes(cosines, labels, 3, temperature)
        assert torch.isfinite(sums).all()
        assert sums.argmax() == winner
    weights = (cosines.double() / 0.07).exp()[0]
    goal = torch.stack([weights[2:].sum(), weights[:2].sum()]) / weights[0]
    sums = knn.votes(cosines, labels, 3, 0.07)[0]
    torch.testing.assert_close(sums[:2], goal)
    assert sums[2] == 0


def test_a_class_without_votes_is_not_among_five() -> None:
    train = knn.Features(torch.eye(3), torch.tensor([0, 1, 2]), {})
    val = knn.Features(torch.eye(3)[:1], torch.tensor([6]), {})
    found = knn.score(train, val, 7, (3,), 0.07)
    assert found == {3: {'top1': 0.0, 'top5': 0.0}}


@both
@torch.no_grad()
def test_features_are_those_of_each_image_by_itself(
    cls: type, folder: Path
) -> None:
    model = micro(cls, drop_path_rate=0.9)
    options = settings(folder)
    part, val = class_images.open_data(options)
    assert (len(part), len(val), part.classes) == (15, 9, NAMES)
    found = knn.extract(model, part, options)
    assert found.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    paths = sorted(folder.glob('train/*/*.png'))
    for path, vector in zip(paths, found.vectors):
        image = read_image(path)
        height, width = image.shape[:2]
        crop = part.dataset.pipeline.transforms[1](dict(img=image))['img']
        assert crop.shape == (32, 32, 3) and (height, width) != (32, 32)
        x = (torch.tensor(crop).double() - torch.tensor(class_images.MEAN)) / (
            torch.tensor(class_images.STD)
        )
        x = x.float().permute(2, 0, 1)[None]
        for down, stage in zip(model.downsample_layers, model.stages):
            x = down(x)
            for block in stage:
                x = block(x)
        x = x[0].flatten(1).mean(1)
        torch.testing.assert_close(vector, x / x.norm(), atol=2e-6, rtol=0)
    again = knn.extract(model, part, options._replace(batch_size=7))
    torch.testing.assert_close(again.vectors, found.vectors)


def test_modes_and_random_states_stay(folder: Path) -> None:
    model = ConvNeXtV2(micro(ConvNeXtV2).arch, drop_path_rate=0.5)
    model.train()
    model.stages[1].eval()
    modes = [m.training for m in model.modules()]
    grads = [p.requires_grad for p in model.parameters()]
    options = settings(folder)
    parts = class_images.open_data(options)
    states = [torch.get_rng_state(), str(np.random.get_state()[1])]
    states.append(random.getstate())
    knn.measure(model, parts, options)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == str(np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert modes == [m.training for m in model.modules()]
    assert grads == [p.requires_grad for p in model.parameters()]
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error(folder: Path) -> None:
    model = ConvNeXtV2(micro(ConvNeXtV2).arch).train()
    with pytest.raises(ZeroDivisionError), knn.evaluating(model):
        assert not model.stages[0].training
        raise ZeroDivisionError
    assert all(m.training for m in model.modules())


def test_likeness_of_colours_is_found(folder: Path) -> None:
    options = settings(folder, size=64, k=(1, 3, 15))
    result = knn.measure(
        micro(ConvNeXtV2), class_images.open_data(options), options
    )
    assert list(result.accuracy) == [1, 3, 15]
    # Of three classes one in three is chance, and none is a fifth.
    assert result.accuracy[3]['top1'] > 70
    assert all(set(row) == {'top1'} for row in result.accuracy.values())
    assert (result.images, result.classes) == ((15, 9), 3)
    top1 = [row['top1'] for row in result.accuracy.values()]
    assert result.accuracy[result.best]['top1'] == max(top1)


def test_lists_are_read_and_numbers_are_classes(folder: Path) -> None:
    by_name = [
        f'{path.relative_to(folder)} {path.parent.name}'
        for path in sorted(folder.glob('train/*/*.png'))
    ]
    (folder / 'names.txt').write_text('\n'.join(by_name))
    by_number = [
        f'{path.relative_to(folder)} {NAMES.index(path.parent.name)}'
        for path in sorted(folder.glob('val/*/*.png'))
        if path.parent.name != 'brown'
    ]
    (folder / 'numbers.txt').write_text('\n'.join(by_number))
    model, folders = micro(ConvNeXtV2), settings(folder)
    lists = settings(folder, train='names.txt', val='numbers.txt')
    whole, listed = (
        [knn.extract(model, part, s) for part in class_images.open_data(s)]
        for s in (folders, lists)
    )
    assert torch.equal(whole[0].vectors, listed[0].vectors)
    assert torch.equal(whole[0].labels, listed[0].labels)
    kept = whole[1].labels > 0
    torch.testing.assert_close(whole[1].vectors[kept], listed[1].vectors)
    assert torch.equal(whole[1].labels[kept], listed[1].labels)


def test_a_class_may_be_absent_from_val(folder: Path) -> None:
    """The others keep the numbers that they have in training."""
    draw(folder, 'few', 2, NAMES[:2])
    (folder / 'few' / 'brown').rename(folder / 'few' / 'pink')
    _, val = class_images.open_data(settings(folder, val='few'))
    assert [row[2] for row in val] == [1, 1, 2, 2]


def test_a_number_of_images_is_spread(folder: Path) -> None:
    train, val = class_images.open_data(settings(folder, number=6))
    assert [train[i][2] for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert len(val) == 6
    assert len(class_images.open_data(settings(folder, number=99))[1]) == 9


def test_a_damaged_image_is_left_out(folder: Path) -> None:
    bad = folder / 'train/green/2.png'
    bad.write_bytes(bad.read_bytes()[:99])
    options = settings(folder)
    parts = class_images.open_data(options)
    result = knn.measure(micro(ConvNeXtV2), parts, options)
    assert result.images == (14, 9)
    assert list(result.broken) == [str(bad)]
    with pytest.raises(ValueError, match='number of training images, 14'):
        knn.measure(micro(ConvNeXtV2), parts, options._replace(k=(15,)))
    for path in folder.glob('val/*/*.png'):
        path.write_bytes(b'no picture')
    with pytest.raises(ValueError, match=r'no image can be read; .*val/'):
        knn.measure(micro(ConvNeXtV2), parts, options)


def lacking(folder: Path) -> None:
    draw(folder, 'val', 1, (*NAMES, 'yellow'))


def empty(folder: Path) -> None:
    (folder / 'train/yellow').mkdir()


def numbered(folder: Path) -> None:
    (folder / 'val.txt').write_text('val/pink/0.png 3\n')


def unclassed(folder: Path) -> None:
    (folder / 'val.txt').write_text('val/pink/0.png\n')


def one_class(folder: Path) -> None:
    draw(folder, 'one', 2, ('pink',))


def flat(folder: Path) -> None:
    write(folder / 'flat/0.png', np.zeros((40, 40, 3), np.uint8))


REFUSED: Dict[str, List] = {
    'no part': [dict(train='gone'), 'gone not found: it must be a folder of'],
    'no val': [dict(val='gone.txt'), 'gone.txt not found'],
    'no class folders': [dict(train='flat'), 'flat: no class folders', flat],
    'empty class': [{}, 'no image at .*yellow', empty],
    'unknown class': [
        {},
        'val has classes that .*train lacks: yellow',
        lacking,
    ],
    'unknown number': [dict(val='val.txt'), 'lacks: 3', numbered],
    'no class in a list': [dict(val='val.txt'), 'line 1: .*class', unclassed],
    'one class': [dict(train='one'), r"there is \['pink'\]", one_class],
    'large k': [dict(k=(3, 16)), 'number of training images, 15, got 16'],
    'no neighbour': [dict(k=(0, 5)), r'k must be 1 or more, got \[0, 5\]'],
    'no k': [dict(k=()), 'k must be 1 or more'],
    'cold': [dict(temperature=0.0), 'temperature must be above 0, got 0.0'],
    'nan': [dict(temperature=math.nan), 'temperature must be above 0'],
    'small': [dict(size=31), 'size must be at least 32, got 31'],
    'crop': [dict(crop_ratio=1.5), r'crop_ratio must be in \(0, 1\], got 1.5'],
    'number': [dict(number=0), 'number must be at least 1, got 0'],
    'batch': [dict(batch_size=0), 'batch_size must be at least 1, got 0'],
    'workers': [dict(num_workers=-1), 'num_workers must be at least 0'],
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_measured_is_refused(case: str, folder: Path) -> None:
    options, message, *prepare = REFUSED[case]
    for step in prepare:
        step(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        class_images.open_data(settings(folder, **options))


def test_the_backbone_of_any_model_is_found() -> None:
    row = dict(type='mmconvnext.ConvNeXtV2', arch=micro(ConvNeXtV2).arch)
    for model in (
        FCMAE(row, decoder_dim=16),
        ImageClassifier(row, num_classes=3),
        nn.Sequential(ConvNeXtV2(row['arch'])),
        ConvNeXtV2(row['arch']),
    ):
        assert isinstance(knn.find_backbone(model), ConvNeXtV2)
    pair = nn.ModuleDict({n: ConvNeXtV2(row['arch']) for n in ('a', 'b')})
    with pytest.raises(ValueError, match=r"one ConvNeXt.*\['a', 'b'\]"):
        knn.find_backbone(pair)
    pair['backbone'] = ConvNeXtV2(row['arch'])
    assert knn.find_backbone(pair) is pair['backbone']
    with pytest.raises(ValueError, match='Linear must have one.*none'):
        knn.find_backbone(nn.Linear(2, 2))
