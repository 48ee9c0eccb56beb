"""Class folders and lists that are wrong in every way that has been met."""

from pathlib import Path
from typing import Callable, NamedTuple, Optional, Tuple

import pytest
from labelled import image, write
from mmengine.config import Config

from mmconvnext.data import DataError, check, demand
from mmconvnext.data.findings import errors

PIPELINE = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.PackClass'),
]


def draw(root: Path, *names: str, count: int = 2) -> Path:
    for split in ('train', 'val'):
        for name in names:
            for i in range(count):
                write(root / split / name / f'{i}.jpg', image(i))
    return root


def config(root: Path, num_classes: int = 2, **options) -> Config:
    def loader(split: str) -> dict:
        return dict(
            dataset=dict(
                type='mmconvnext.ClassFolderDataset',
                data_root=str(root),
                data_prefix=dict(img_path=split),
                pipeline=PIPELINE,
                **options,
            )
        )

    return Config(
        dict(
            default_scope='mmengine',
            model=dict(
                type='mmconvnext.ImageClassifier', num_classes=num_classes
            ),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(type='mmconvnext.Accuracy'),
        )
    )


def lines(split: str, text: str) -> Callable[[Path], object]:
    """Name a list for a split; the other one stays as it is."""
    return lambda root: (root / f'{split}.txt').write_text(text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


class Case(NamedTuple):
    harm: Callable[[Path], object]
    words: Tuple[str, ...]
    severity: str = 'error'
    num_classes: int = 2
    ann_file: Optional[str] = None
    metainfo: Optional[dict] = None


BOTH = dict(classes=('ant', 'bee', 'cow'))
CASES = {
    'a class of validation lacks': Case(
        lambda root: remove(root / 'val/ant') or (root / 'val/ant').rmdir(),
        ('val', 'classes: bee', 'two or more'),
    ),
    'validation has another class': Case(
        lambda root: draw(root, 'aaa') and remove(root / 'train/aaa')
        or (root / 'train/aaa').rmdir(),
        ('val', 'aaa, not in training', 'metainfo=dict(classes='),
    ),
    'a class folder is empty': Case(
        lambda root: remove(root / 'train/ant'), ('train/ant', 'add')
    ),
    'images lie beside the folders': Case(
        lambda root: write(root / 'train/lost.jpg', image(0)),
        ('1 images outside of the class folders: lost.jpg',),
        'warning',
    ),
    'an image is cut off': Case(
        lambda root: cut(root / 'train/ant/1.jpg'),
        ('train/ant/1.jpg', 'replace or remove'),
    ),
    'the model has other classes': Case(
        lambda root: None,
        ('config, model', 'num_classes=7', '2, the classes of the data (ant'),
        num_classes=7,
    ),
    'a class has no image': Case(
        lambda root: None,
        ('no image of cow',),
        'warning',
        num_classes=3,
        ann_file='list.txt',
        metainfo=BOTH,
    ),
    'a list names what is not there': Case(
        lambda root: (root / 'list.txt').write_text('ant/0.jpg ant\nx.jpg bee'),
        ('list.txt', '1 of 2 images', 'x.jpg'),
        ann_file='list.txt',
    ),
    'a list has no class in a line': Case(
        lambda root: (root / 'list.txt').write_text('ant/0.jpg ant\nx.jpg\n'),
        ('list.txt, line 2', 'PATH CLASS'),
        ann_file='list.txt',
    ),
    'a folder too high': Case(
        lambda root: [
            (root / s).rename(root / f'{s}_') and (root / s).mkdir()
            or (root / f'{s}_').rename(root / s / 'images')
            for s in ('train', 'val')
        ],
        ('1 classes: images', 'point data_prefix.img_path'),
    ),
}


def found_in(root: Path, case: Case):
    draw(root, 'ant', 'bee')
    (root / 'list.txt').write_text('ant/0.jpg ant\nbee/1.jpg bee\n')
    case.harm(root)
    options = {}
    if case.ann_file:
        options['ann_file'] = case.ann_file
    if case.metainfo:
        options['metainfo'] = case.metainfo
    return config(root, case.num_classes, **options)


@pytest.mark.parametrize('name', CASES)
def test_what_is_wrong_is_said(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    cfg = found_in(tmp_path, case)
    found = check(cfg)
    texts = [str(f) for f in found if f.severity == case.severity]
    assert any(all(w in text for w in case.words) for text in texts), found
    if case.severity == 'error':
        with pytest.raises(DataError):
            demand(cfg, ('train_dataloader', 'val_dataloader'))


@pytest.mark.parametrize('listed', [False, True])
def test_good_data_has_no_finding(listed: bool, tmp_path: Path) -> None:
    options = dict(ann_file='list.txt') if listed else {}
    case = Case(lambda root: None, ())
    cfg = found_in(tmp_path, case._replace(**options))
    assert check(cfg) == []
    assert errors(check(cfg)) == []
