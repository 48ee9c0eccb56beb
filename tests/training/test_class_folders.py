"""Images with classes: folders, lists, and what a classifier gets."""

from pathlib import Path
from typing import Dict, Optional

import pytest
import torch
from labelled import image, write
from mmengine.registry import DATASETS

from mmconvnext import ClassFolderDataset

STEPS = [dict(type='mmconvnext.LoadImage'), dict(type='mmconvnext.PackClass')]


def draw(root: Path, names: Dict[str, int]) -> Path:
    """Write class folders with a number of images in each."""
    for name, count in names.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            write(root / name / f'{i}.jpg', image(i))
    return root


def build(root: Path, lines: Optional[str] = None, **options):
    if lines is not None:
        (root / 'list.txt').write_text(lines, encoding='utf-8')
        options['ann_file'] = 'list.txt'
    cfg = dict(type='mmconvnext.ClassFolderDataset', data_root=str(root))
    return DATASETS.build({**cfg, 'pipeline': STEPS, **options})


def labels(data: ClassFolderDataset) -> list:
    return [data.get_data_info(i)['gt_label'] for i in range(len(data))]


def test_folders_are_classes(tmp_path: Path) -> None:
    draw(tmp_path, {'cat/deep': 2, 'ant': 1, 'ähre': 1, '.hidden': 1})
    data = build(tmp_path)
    assert data.metainfo['classes'] == ('ant', 'cat', 'ähre')
    assert labels(data) == [0, 1, 1, 2]
    item = data[1]
    assert item['inputs'].dtype == torch.uint8
    assert item['inputs'].shape == (3, 48, 64)
    assert int(item['data_samples'].gt_label) == 1
    assert item['data_samples'].img_path.endswith('cat/deep/0.jpg')
    assert item['data_samples'].ori_shape == (48, 64)


@pytest.mark.parametrize(
    ('lines', 'classes', 'expected'),
    [
        ('b/0.jpg b\na/0.jpg a\n', ('a', 'b'), [1, 0]),
        ('a/0.jpg 1\nb/0.jpg 0\n\n', ('0', '1'), [1, 0]),
        ('a/0.jpg\t2\nb/0.jpg   10\n', tuple('0123456789') + ('10',), [2, 10]),
        ('a b/0.jpg b\na/0.jpg a\n', ('a', 'b'), [1, 0]),
    ],
)
def test_lists(
    tmp_path: Path, lines: str, classes: tuple, expected: list
) -> None:
    draw(tmp_path, {'a': 1, 'b': 1, 'a b': 1})
    data = build(tmp_path, lines)
    assert data.metainfo['classes'] == classes
    assert labels(data) == expected
    assert data[0]['inputs'].shape == (3, 48, 64)


def test_metainfo_gives_the_order(tmp_path: Path) -> None:
    draw(tmp_path, {'a': 1, 'b': 1})
    order = dict(classes=('b', 'a', 'c'))
    assert labels(build(tmp_path, metainfo=order)) == [1, 0]
    by_name = build(tmp_path, 'a/0.jpg a\nb/0.jpg 0\n', metainfo=order)
    assert labels(by_name) == [1, 0]


def test_it_is_built_late_too(tmp_path: Path) -> None:
    draw(tmp_path, {'a': 1, 'b': 1})
    data = build(tmp_path, lazy_init=True)
    assert data.metainfo['classes'] == ('a', 'b')
    assert not data._fully_initialized
    data.full_init()
    assert len(data) == 2


@pytest.mark.parametrize(
    ('names', 'lines', 'options', 'error', 'match'),
    [
        ({}, None, {}, FileNotFoundError, 'no class folders.*CLASS/image'),
        ({'a': 1, 'b': 0}, None, {}, FileNotFoundError, r'/b\b'),
        (
            {'a': 1, 'z': 1},
            None,
            dict(metainfo=dict(classes=('a', 'b'))),
            ValueError,
            "z/0.jpg is of class 'z'; classes are",
        ),
        ({'a': 1}, 'a/0.jpg\n', {}, ValueError, "line 1: 'a/0.jpg' has no"),
        (
            {'a': 1},
            'a/0.jpg 7\n',
            dict(metainfo=dict(classes=('a', 'b'))),
            ValueError,
            "list.txt: a/0.jpg is of class '7'",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, names: dict, lines, options: dict, error, match: str
) -> None:
    draw(tmp_path, names)
    with pytest.raises(error, match=match):
        build(tmp_path, lines, **options)
