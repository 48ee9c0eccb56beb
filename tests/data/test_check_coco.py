"""COCO files that are wrong in every way that has been met."""

import copy
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import pytest
from labelled import (
    CLASSES,
    coco,
    det_config,
    draw_coco,
    image,
    write,
    write_json,
)

from mmconvnext.data import DataError, check, demand
from mmconvnext.data.coco_masks import mask_fault
from mmconvnext.data.findings import errors

TRAIN = 'annotations/instances_train2017.json'


def set_all(rows: str, /, **values: object) -> Callable[[Dict], None]:
    """Overwrite keys of every row of a list."""

    def harm(content: Dict) -> None:
        for row in content[rows]:
            row.update(copy.deepcopy(values))

    return harm


def set_first(rows: str, /, **values: object) -> Callable[[Dict], None]:
    def harm(content: Dict) -> None:
        content[rows][0].update(values)

    return harm


def drop(name: str, key: str) -> Callable[[Dict], None]:
    def harm(content: Dict) -> None:
        del content[name][0][key]

    return harm


def corners(content: Dict) -> None:
    """Write [x1, y1, x2, y2] of boxes on the right of the image."""
    for row in content['annotations']:
        row['bbox'] = [40, 20, 60, 40]


class Case(NamedTuple):
    """What is done to the content, and what has to be said."""

    harm: Callable[[Dict], object]
    words: Tuple[str, ...]
    severity: str = 'error'
    classes: Tuple[str, ...] = CLASSES


CASES = {
    'another order': Case(
        lambda content: content['categories'].reverse(),
        ("('block', 'ground')", 'exchanged', "classes=('block', 'ground')"),
    ),
    'another order in the config': Case(
        lambda content: None,
        ("order ('ground', 'block')",),
        classes=('block', 'ground'),
    ),
    'a misspelt class': Case(
        lambda content: None,
        ('without grund', "'grund' -> 'ground'"),
        classes=('grund', 'block'),
    ),
    'another case': Case(
        lambda content: None,
        ('without Ground', "'Ground' -> 'ground'"),
        classes=('Ground', 'block'),
    ),
    'no class of these': Case(
        lambda content: None,
        ('without person, car', "classes=('ground', 'block')"),
        classes=('person', 'car'),
    ),
    'a category missing': Case(
        lambda content: content['categories'].pop(), ('without block',)
    ),
    'a category that is no class': Case(
        lambda content: None,
        ('no class: block (3)',),
        'warning',
        ('ground',),
    ),
    'one name twice': Case(
        set_all('categories', name='ground'),
        ('of one name: ground',),
        classes=('ground',),
    ),
    'category ids twice': Case(
        set_all('categories', id=1), ('categories that share an id: 1',)
    ),
    'annotation ids twice': Case(
        set_all('annotations', id=7), ('annotations that share an id: 7',)
    ),
    'image ids twice': Case(
        set_first('images', id=1), ('images that share an id: 1',)
    ),
    'annotations of absent images': Case(
        set_first('annotations', image_id=99),
        ('1 of 6 annotations whose image_id', 'silence'),
        'warning',
    ),
    'annotations of absent images only': Case(
        set_all('annotations', image_id=99),
        ('6 of 6 annotations whose image_id',),
    ),
    'annotations of absent categories': Case(
        set_first('annotations', category_id=99),
        ('1 of 6 annotations whose category_id',),
        'warning',
    ),
    'a box outside': Case(
        set_first('annotations', bbox=[70, 6, 16, 12]),
        ('1 of 6 boxes outside', '[70, 6, 16, 12] in 0.jpg (64 x 48)'),
        'warning',
    ),
    'a box half outside': Case(
        set_first('annotations', bbox=[60, 6, 16, 12]),
        ('1 of 6 boxes that reach beyond',),
        'warning',
    ),
    'boxes as corners': Case(
        corners, ('6 of 6 boxes that reach beyond', '[x1, y1, x2, y2]?')
    ),
    'boxes as shares': Case(
        set_all('annotations', bbox=[0.1, 0.2, 0.3, 0.3]),
        ('6 of 6 boxes narrower than a pixel', 'shares of the image'),
    ),
    'an empty box': Case(
        set_first('annotations', bbox=[4, 6, 0, 12]),
        ('1 of 6 boxes narrower',),
        'warning',
    ),
    'no area': Case(
        set_all('annotations', area=0), ('6 of 6 boxes', 'an area above 0')
    ),
    'a box of NaN': Case(
        set_first('annotations', bbox=[float('nan'), 1, 2, 3]),
        ('not four finite numbers',),
    ),
    'a box of three numbers': Case(
        set_first('annotations', bbox=[1, 2, 3]),
        ('not four finite numbers',),
    ),
    'crowds only': Case(
        set_all('annotations', iscrowd=1), ('no object that can be trained',)
    ),
    'no annotations': Case(
        lambda content: content['annotations'].clear(),
        ('3 images and no object',),
    ),
    'no masks': Case(
        set_all('annotations', segmentation=[]),
        ('no segmentation in 6 of 6', 'with_mask=False', '--task boxes'),
    ),
    'a mask of two points': Case(
        set_first('annotations', segmentation=[[1, 2, 3, 4]]),
        ('polygons of too few points in 1 of 6',),
        'warning',
    ),
    'run lengths of another size': Case(
        set_first(
            'annotations', segmentation=dict(size=[9, 9], counts=[0, 81])
        ),
        ('run lengths of [9, 9], image [48, 64]',),
    ),
    'another size': Case(
        set_all('images', width=48, height=64),
        ('3 of 3 images of another size', '0.jpg is 64 x 48, 48 x 64 listed'),
    ),
    'no width': Case(drop('images', 'width'), ("no 'width' in images[0]",)),
    'no area given': Case(
        drop('annotations', 'area'), ("no 'area' in annotations[0]",)
    ),
    'a text for a box': Case(
        set_first('annotations', bbox=['4', '6', '16', '12']),
        ('1 of 6 boxes that are not four finite numbers', "'16'"),
    ),
    'a text for an area': Case(
        set_first('annotations', area='192'),
        ("area='192' in annotations[0], not a number",),
    ),
    'a text for a width': Case(
        set_all('images', width='64'),
        ("width='64' in images[0], not a number",),
    ),
    'a list for an id': Case(
        set_first('images', id=[1]), ('id=[1] in images[0]',)
    ),
    'no file name': Case(
        set_first('images', file_name=None),
        ('file_name=None in images[0], not a text',),
    ),
    'a text for a flag': Case(
        set_first('annotations', iscrowd='0'),
        ("iscrowd='0' in annotations[0], not 0 or 1",),
    ),
    'no rows but names': Case(
        lambda content: content.update(categories=['ground', 'block']),
        ("categories[0] is 'ground', not an object",),
    ),
    'no rows but numbers': Case(
        lambda content: content['annotations'].append(7),
        ('annotations[6] is 7, not an object',),
    ),
    'an image twice': Case(
        set_first('images', file_name='1.jpg'),
        ('several rows: 1.jpg', 'under one id'),
        'warning',
    ),
    'slashes of Windows': Case(
        set_first('images', file_name='some\\0.jpg'),
        ('1 of 3 images', 'some\\0.jpg is 0.jpg there'),
    ),
    'classes of one name': Case(
        lambda content: None,
        ('classes of one name: ground',),
        classes=('ground', 'ground'),
    ),
    'classes that are numbers': Case(
        lambda content: None, ('without 1, 2',), classes=(1, 2)
    ),
    'a flat polygon': Case(
        set_first('annotations', segmentation=[1, 2, 9, 2, 9, 9]),
        ('no lists of finite numbers in 1 of 6',),
    ),
    'a polygon of texts': Case(
        set_first('annotations', segmentation=[['1', '2'] * 3]),
        ('no lists of finite numbers in 1 of 6',),
    ),
    'a polygon of NaN': Case(
        set_first('annotations', segmentation=[[float('nan')] * 6]),
        ('no lists of finite numbers in 1 of 6',),
    ),
    'a polygon outside': Case(
        set_first('annotations', segmentation=[[90, 1, 99, 1, 99, 9]]),
        ('polygons outside of their image in 1 of 6',),
        'warning',
    ),
    'polygons outside': Case(
        set_all('annotations', segmentation=[[90, 1, 99, 1, 99, 9]]),
        ('polygons outside of their image in 6 of 6',),
    ),
    'run lengths of too few pixels': Case(
        set_first(
            'annotations', segmentation=dict(size=[48, 64], counts=[9, 9])
        ),
        ('do not add up to [48, 64] in 1 of 6',),
    ),
    'run lengths that are noise': Case(
        set_first(
            'annotations', segmentation=dict(size=[48, 64], counts='zz!z')
        ),
        ('do not add up to [48, 64] in 1 of 6',),
    ),
    'a size that is a number': Case(
        set_first('annotations', segmentation=dict(size=3, counts=[1, 2])),
        ('run lengths of 3, image [48, 64]',),
    ),
    'no list of categories': Case(
        lambda content: content.pop('categories'), ("no list 'categories'",)
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_names_file_values_and_fix(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    draw_coco(tmp_path, coco())
    content = coco()
    case.harm(content)
    write_json(tmp_path / TRAIN, content)
    cfg = det_config(tmp_path, classes=case.classes)
    findings = check(cfg, ['train_dataloader'])
    found = [f for f in findings if all(w in str(f) for w in case.words)]
    assert found, '\n'.join(map(str, findings))
    assert found[0].severity == case.severity, found
    assert all(map(all, found))
    if case.severity == 'error':
        with pytest.raises(DataError, match='fix: '):
            demand(cfg, ['train_dataloader'])


def test_says_nothing_of_data_that_is_right(tmp_path: Path) -> None:
    draw_coco(tmp_path, coco())
    assert check(det_config(tmp_path)) == []


FILES: Dict[str, Tuple[Callable[[Path], object], Tuple[str, ...]]] = {
    'an image missing': (
        lambda root: (root / 'train2017/1.jpg').unlink(),
        ('1 of 3 images', 'are not there: 1.jpg'),
    ),
    'an image in capitals': (
        lambda root: (root / 'train2017/1.jpg').rename(
            root / 'train2017/1.JPG'
        ),
        ('not there: 1.jpg', '1.jpg is 1.JPG there', 'case counts'),
    ),
    'an image of another suffix': (
        lambda root: (root / 'train2017/1.jpg').rename(
            root / 'train2017/1.png'
        ),
        ('1.jpg is 1.png there',),
    ),
    'a damaged image': (
        lambda root: (root / 'train2017/1.jpg').write_bytes(b'no'),
        ('1 damaged of 3', '1.jpg (not a readable image)'),
    ),
    'no folder': (
        lambda root: (root / 'train2017').rename(root / 'gone'),
        ('train2017', 'no folder'),
    ),
    'no file': (
        lambda root: (root / TRAIN).unlink(),
        ('no readable file (No such file or directory)',),
    ),
    'no JSON': (
        lambda root: (root / TRAIN).write_text('{'),
        ('no JSON (Expecting property name',),
    ),
    'a byte order mark': (
        lambda root: (root / TRAIN).write_bytes(
            b'\xef\xbb\xbf' + (root / TRAIN).read_bytes()
        ),
        ('a byte order mark', 'UTF-8 without one'),
    ),
    'UTF-16': (
        lambda root: (root / TRAIN).write_text('{}', encoding='utf-16'),
        ('no text in UTF-8',),
    ),
    'a list': (
        lambda root: (root / TRAIN).write_text('[]'),
        ("no list 'images'",),
    ),
}


@pytest.mark.parametrize('name', FILES)
def test_names_files_that_are_not_there(name: str, tmp_path: Path) -> None:
    harm, words = FILES[name]
    draw_coco(tmp_path, coco())
    harm(tmp_path)
    findings = errors(check(det_config(tmp_path), ['train_dataloader']))
    assert any(
        all(word in str(each) for word in words) for each in findings
    ), findings


def test_images_that_no_row_lists(tmp_path: Path) -> None:
    draw_coco(tmp_path, coco())
    write(tmp_path / 'train2017/more.jpg', image(9))
    (found,) = check(det_config(tmp_path))
    assert found.severity == 'warning'
    assert '1 images that' in found.found and 'more.jpg' in found.found


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    content = coco()
    content['annotations'] = content['annotations'][:4]
    draw_coco(tmp_path, content)
    (found,) = check(det_config(tmp_path))
    assert found.severity == 'note'
    assert '1 of 3 images without an object: 2.jpg' in found.found


def test_an_evaluator_with_another_file(tmp_path: Path) -> None:
    draw_coco(tmp_path, coco())
    cfg = det_config(tmp_path)
    cfg.val_evaluator = [dict(cfg.val_evaluator, ann_file='other.json')]
    (found,) = errors(check(cfg))
    assert "ann_file='other.json'" in found.found
    assert 'instances_val2017.json' in found.fix


HEADS: List[Tuple[str, Callable]] = [
    ('roi_head.mask_head', lambda roi: roi.mask_head.update(num_classes=80)),
    (
        'roi_head.bbox_head[1]',
        lambda roi: roi.update(
            bbox_head=[roi.bbox_head, dict(roi.bbox_head, num_classes=80)]
        ),
    ),
]


@pytest.mark.parametrize(('name', 'harm'), HEADS)
def test_heads_of_another_number(
    name: str, harm: Callable, tmp_path: Path
) -> None:
    draw_coco(tmp_path, coco())
    cfg = det_config(tmp_path)
    cfg.model.rpn_head = dict(type='RPNHead', num_classes=1)
    harm(cfg.model.roi_head)
    (found,) = errors(check(cfg))
    assert found.file.endswith(f'model.{name}')
    assert found.found == 'num_classes=80' and 'ground, block' in str(found)


def test_boxes_only_needs_no_masks(tmp_path: Path) -> None:
    content = coco()
    set_all('annotations', segmentation=[])(content)
    draw_coco(tmp_path, content)
    cfg = det_config(tmp_path)
    for loader in ('train_dataloader', 'val_dataloader'):
        cfg[loader].dataset.pipeline[1].with_mask = False
    assert check(cfg) == []


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'MultiImageMixDataset'])
def test_looks_into_wrappers(wrapper: str, tmp_path: Path) -> None:
    draw_coco(tmp_path, coco())
    cfg = det_config(tmp_path, classes=('block', 'ground'))
    loader = cfg.train_dataloader
    loader.dataset = dict(type=wrapper, dataset=loader.dataset)
    (found,) = errors(check(cfg, ['train_dataloader']))
    assert 'exchanged' in found.expected


def test_another_family_is_not_checked_and_says_so(tmp_path: Path) -> None:
    draw_coco(tmp_path, coco())
    cfg = det_config(tmp_path)
    cfg.train_dataloader.dataset.type = 'LVISV1Dataset'
    (found,) = check(cfg, ['train_dataloader'])
    assert found.severity == 'note' and 'LVISV1Dataset' in found.found


@pytest.mark.parametrize('share', [0.0, 0.001, 0.3, 0.7, 1.0])
def test_run_lengths_add_up(share: float) -> None:
    """What COCO's own encoder writes is no fault."""
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (48, 64), (301, 257)):
        drawn = rng.random((height, width)) < share
        runs = mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
        runs['counts'] = runs['counts'].decode()
        assert mask_fault(runs, [height, width]) is None
        assert mask_fault(runs, [height, width + 1]) is not None
