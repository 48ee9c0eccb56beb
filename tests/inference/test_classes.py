"""Names of classes, labels of images, and scores of a classifier."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, List, Optional

import pytest
import torch
from classified import CLASSES, class_config, draw_folders
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mmconvnext import ClassFolderDataset
from mmconvnext.inference import classes as module
from mmconvnext.inference.classes import COLUMN, ClassScorer, settle_names
from mmconvnext.inference.scores import scorer
from mmconvnext.training.accuracy import Accuracy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return draw_folders(tmp_path)


def sample(scores: List[float], label: int) -> BaseDataElement:
    made = BaseDataElement(
        pred_scores=torch.tensor(scores),
        pred_label=torch.tensor(scores).argmax(),
        gt_label=torch.tensor(label),
    )
    made.set_metainfo(dict(img_path='x.jpg'))
    return made


ROWS = [
    ([0.7, 0.2, 0.1], 0),
    ([0.1, 0.6, 0.3], 0),
    ([0.2, 0.7, 0.1], 1),
    ([0.3, 0.5, 0.2], 1),
]


def test_scores_of_images_and_of_all(root: Path) -> None:
    labels = scorer(class_config(root), '', root / 'val')
    assert isinstance(labels, ClassScorer)
    first, second, *_ = (labels.add(sample(*row)) for row in ROWS)
    assert first.means == {COLUMN: pytest.approx(70)}
    assert second.means == {COLUMN: pytest.approx(10)}
    assert second.words == dict(true='ant', predicted='bee')
    assert list(second.classes) == ['ant']
    total = labels.total()
    assert total.overall == {'top-1': 75}
    assert total.classes['ant'] == dict(recall=50, precision=100)
    assert total.classes['bee'] == {
        'recall': 100,
        'precision': pytest.approx(200 / 3),
    }
    assert all(math.isnan(v) for v in total.classes['cow'].values())
    assert total.means['recall'] == 75


@pytest.mark.parametrize('count', [3, 5, 6, 40])
def test_top_k_are_those_of_the_test(tmp_path: Path, count: int) -> None:
    names = [f'c{i:02}' for i in range(count)]
    draw_folders(tmp_path, names, count=1)
    labels = scorer(class_config(tmp_path, count), '', tmp_path / 'val')
    metric = Accuracy(topk=(1, 5))
    torch.manual_seed(0)
    rows = [torch.randn(count).softmax(0) for _ in range(30)]
    rows.append(torch.full((count,), 1 / count))  # knows nothing
    for i, row in enumerate(rows):
        made = sample(row.tolist(), i % count)
        labels.add(made)
        metric.process({}, [made.to_dict()])
    theirs = metric.compute_metrics(metric.results)
    ours = labels.total().overall
    assert {k.replace('-', ''): v for k, v in ours.items()} == (
        pytest.approx(theirs)
    )
    assert ('top-5' in ours) == (count > 5)


def test_labels_of_the_config_are_found_by_path(
    root: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / 'link').symlink_to(root / 'val')
    labels = scorer(class_config(root), '', root / 'val')
    monkeypatch.chdir(root)
    for path in (root / 'val/bee/1.png', 'val/bee/1.png', 'link/bee/1.png'):
        assert labels.info(Path(path))['gt_label'] == 1
    with pytest.raises(ValueError, match=r'val has no label of it'):
        labels.info(root / 'val/bee/9.png')


def write_list(path: Path, *lines: str) -> str:
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return str(path)


LISTS = {
    'from the folder of the images': ('bee/1.png bee', 'bee'),
    'from the folder of the data': ('bee/1.png bee', ''),
    'with a number': ('bee/1.png 1', ''),
}


@pytest.mark.parametrize('case', LISTS)
def test_a_list_of_ones_own(case: str, root: Path, tmp_path: Path) -> None:
    line, below = LISTS[case]
    if below:
        line = line.replace(f'{below}/', '', 1)
    file = write_list(tmp_path / 'own.txt', line)
    labels = scorer(class_config(root), file, root / 'val' / below)
    assert labels.classes == list(CLASSES)
    assert labels.info(root / 'val/bee/1.png')['gt_label'] == 1
    with pytest.raises(ValueError, match=r'own\.txt has no label of it'):
        labels.info(root / 'val/bee/0.png')


def test_class_folders_of_ones_own(root: Path, tmp_path: Path) -> None:
    """Some of the classes, and not the config's folder."""
    own = draw_folders(tmp_path / 'own', ['cow']) / 'val'
    labels = scorer(class_config(root), str(own), own)
    assert labels.info(own / 'cow/0.png')['gt_label'] == 2
    with pytest.raises(ValueError, match='no label of it'):
        labels.info(root / 'val/cow/0.png')


REFUSED = {
    'class of a folder': (None, r"dog/0\.png is of class 'dog'"),
    'class of a list': (['ant/0.png dog'], r"ant/0\.png is of class 'dog'"),
    'no class': (['x.png'], "line 1: 'x.png' has no class"),
    'two classes': (
        ['ant/0.png ant', 'ant/0.png bee'],
        r'ant/0\.png has two classes, ant and bee',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_wrong_labels_are_named(case: str, root: Path, tmp_path: Path) -> None:
    lines, text = REFUSED[case]
    if lines is None:
        own = str(draw_folders(tmp_path / 'own', ['ant', 'dog']) / 'val')
    else:
        own = write_list(tmp_path / 'own.txt', *lines)
    with pytest.raises(ValueError, match=text):
        scorer(class_config(root), own, root / 'val')


def test_missing_labels_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='labels not found: gone'):
        scorer(class_config(root), 'gone', root)
    cfg = class_config(tmp_path / 'gone')
    cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
    with pytest.raises(FileNotFoundError, match='labels not found: .*val'):
        scorer(cfg, '', tmp_path)


def trained(path: Path, names: Optional[List[str]]) -> str:
    meta = dict(dataset_meta=dict(classes=tuple(names))) if names else {}
    torch.save(dict(state_dict={}, meta=meta), path)
    return str(path)


SETTLED = {
    'of the config': (['x', 'y', 'z'], None, True, 'xyz'),
    'the config says it of others': (['x', 'y', 'z'], CLASSES, True, 'xyz'),
    'of the checkpoint': (None, ['k', 'l', 'm'], False, 'klm'),
    'of checkpoint and data': (None, CLASSES, True, CLASSES),
    'of the data': (None, None, True, CLASSES),
    'data that lacks a class': (None, ['ant', 'bee', 'cat', 'cow'], True, ''),
    'numbers': (None, None, False, '012'),
}


@pytest.mark.parametrize('case', SETTLED)
def test_where_names_come_from(
    case: str, root: Path, tmp_path: Path, monkeypatch
) -> None:
    given, meta, there, names = SETTLED[case]
    names = names or meta
    cfg = class_config(root if there else tmp_path / 'gone', len(names))
    if given:
        cfg.test_dataloader.dataset.metainfo = dict(classes=given)
    said: List[Any] = []
    monkeypatch.setattr(module, 'print_log', lambda *a: said.append(a))
    settle_names(cfg, trained(tmp_path / 'x.pth', meta))
    found = build_data(cfg).metainfo['classes']
    assert list(found) == list(names)
    # Thousands of names in a config would take long to write.
    written = 'classes' in (cfg.test_dataloader.dataset.get('metainfo') or {})
    assert written == (bool(given) or not there or len(names) > 3)
    assert bool(said) == (case == 'numbers')
    settle_names(cfg, None)  # again changes nothing
    assert list(build_data(cfg).metainfo['classes']) == list(names)


def test_numbers_of_a_list_are_those_of_training(
    root: Path, tmp_path: Path
) -> None:
    file = write_list(tmp_path / 'list.txt', 'bee/0.png 1', 'ant/0.png 0')
    cfg = class_config(root, ann_file=file)
    settle_names(cfg, trained(tmp_path / 'x.pth', CLASSES))
    labels = scorer(cfg, '', root / 'val')
    assert labels.classes == list(CLASSES)
    assert labels.info(root / 'val/bee/0.png')['gt_label'] == 1


def build_data(cfg: Config) -> ClassFolderDataset:
    options = dict(pipeline=[], lazy_init=True)
    given = {**cfg.test_dataloader.dataset, **options}
    return ClassFolderDataset(
        **{k: v for k, v in given.items() if k != 'type'}
    )


def test_names_may_be_in_a_file(root: Path, tmp_path: Path) -> None:
    """As mmengine reads them, a line each, with white space."""
    file = tmp_path / 'names.txt'
    file.write_text('ant\nbee\nbig cow\n', encoding='utf-8')
    cfg = class_config(root, metainfo=dict(classes=str(file)))
    settle_names(cfg, None)
    assert list(build_data(cfg).metainfo['classes'])[2] == 'big cow'
    file.write_text('ant\nbee\n', encoding='utf-8')
    with pytest.raises(
        ValueError, match=r'3 classes, .* names 2 \(ant, bee\)'
    ):
        settle_names(
            class_config(root, metainfo=cfg.test_dataloader.dataset.metainfo),
            None,
        )
    file.unlink()
    with pytest.raises(ValueError, match=r'classes: no file .*names\.txt'):
        settle_names(cfg, None)


def test_names_that_cannot_be_right(root: Path, tmp_path: Path) -> None:
    cfg = class_config(root, classes=1000)
    text = r'model has 1000 classes, .* names 3 \(ant, bee, cow\)'
    with pytest.raises(ValueError, match=text):
        settle_names(cfg, None)
    path = trained(tmp_path / 'x.pth', ['ant', 'bee', 'dog'])
    text = rf'{re.escape(path)} was trained on .*dog; .* has others: cow$'
    with pytest.raises(ValueError, match=text):
        settle_names(class_config(root), path)


def test_data_sets_of_a_list_stay_as_they_are(root: Path) -> None:
    """The data set of the config keeps its own list."""
    file = write_list(root / 'list.txt', 'val/cow/0.png cow')
    cfg = class_config(
        root,
        ann_file='list.txt',
        data_prefix=dict(img_path=''),
        metainfo=dict(classes=CLASSES),
    )
    labels = scorer(cfg, '', root)
    assert labels.info(root / 'val/cow/0.png')['gt_label'] == 2
    with pytest.raises(ValueError, match=r'list\.txt has no label of it'):
        labels.info(root / 'val/cow/1.png')
    assert len(ClassFolderDataset(ann_file=file, pipeline=[])) == 1
