"""IoU and AP per image are the hosts' own."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmconvnext.inference.scores import CocoScorer, MapScorer, scorer


def seg_config(root: Path, **dataset) -> Config:
    return Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(
                dataset=dict(
                    type='BaseSegDataset',
                    data_root=str(root),
                    data_prefix=dict(img_path='img', seg_map_path='lab'),
                    metainfo=dict(
                        classes=('sky', 'road', 'car'),
                        palette=[(1, 1, 1), (2, 2, 2), (3, 3, 3)],
                    ),
                    reduce_zero_label=True,
                    **dataset,
                )
            ),
            test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        )
    )


@pytest.fixture
def maps(tmp_path: Path) -> MapScorer:
    for name in ('a', 'sub/b'):
        label = tmp_path / 'lab' / f'{name}.png'
        label.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(label), np.zeros((4, 4), np.uint8))
    init_default_scope('mmseg')
    return scorer(seg_config(tmp_path), '', tmp_path / 'img')


def seg_sample(label: list, predicted: list):
    from mmseg.structures import SegDataSample

    def data(rows: list) -> PixelData:
        return PixelData(data=torch.tensor(rows)[None])

    return SegDataSample(gt_sem_seg=data(label), pred_sem_seg=data(predicted))


def test_iou_per_image_and_over_all(maps: MapScorer) -> None:
    first = maps.add(seg_sample([[0, 0, 1, 255]], [[0, 1, 1, 2]]))
    # sky 1 of 2, road 1 of 2; the car predicted on an ignored pixel is none.
    assert first.classes['sky']['IoU'] == pytest.approx(50)
    assert first.classes['road'] == dict(IoU=50, Acc=100)
    assert math.isnan(first.classes['car']['IoU'])
    assert first.means['IoU'] == pytest.approx(50)
    assert maps.legend(first) == dict(sky=(1, 1, 1), road=(2, 2, 2))
    second = maps.add(seg_sample([[0, 0, 0, 0]], [[0, 0, 0, 0]]))
    assert second.means['IoU'] == 100
    # Areas are added, not means averaged: sky 5 of 6.
    total = maps.total()
    assert total.classes['sky']['IoU'] == pytest.approx(500 / 6)
    assert total.means['IoU'] == pytest.approx((500 / 6 + 50) / 2)


def test_labels_of_maps_are_found_or_named(
    maps: MapScorer, tmp_path: Path
) -> None:
    info = maps.info(tmp_path / 'img/sub/b.jpg')
    assert info['seg_map_path'] == str(tmp_path / 'lab/sub/b.png')
    assert info['reduce_zero_label'] is True
    with pytest.raises(ValueError, match=r'no label map at .*lab/c\.png'):
        maps.info(tmp_path / 'img/c.jpg')
    with pytest.raises(ValueError, match=r'label map is \(1, 2\), the image'):
        maps.add(seg_sample([[0, 0]], [[0, 0, 0]]))
    with pytest.raises(ValueError, match='class 7 of 3'):
        maps.add(seg_sample([[0, 7]], [[0, 0]]))


def test_scorers_refuse_other_configs(tmp_path: Path) -> None:
    init_default_scope('mmseg')
    cfg = seg_config(tmp_path)
    with pytest.raises(FileNotFoundError, match='labels not found: gone'):
        scorer(cfg, 'gone', tmp_path)
    cfg.default_scope = 'mmpose'
    text = r"\['mmseg', 'mmdet', 'mmengine'\].*'mmpose'"
    with pytest.raises(ValueError, match=text):
        scorer(cfg, '', tmp_path)
    cfg = seg_config(tmp_path)
    cfg.test_evaluator = [dict(type='CityscapesMetric')]
    with pytest.raises(ValueError, match='no IoUMetric.*CityscapesMetric'):
        scorer(cfg, str(tmp_path), tmp_path)


BOXES = [[10, 10, 50, 50], [60, 10, 90, 40]]


@pytest.fixture
def coco(tmp_path: Path) -> CocoScorer:
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=100, height=80)
        for i in (1, 2, 3)
    ]
    annotations = [
        dict(
            id=image * 10 + k,
            image_id=image,
            category_id=5 + k,
            bbox=[x, y, r - x, b - y],
            area=(r - x) * (b - y),
            segmentation=[[x, y, r, y, r, b, x, b]],
            iscrowd=0,
        )
        for image in (1, 2)
        for k, (x, y, r, b) in enumerate(BOXES)
    ]
    categories = [dict(id=5, name='cat'), dict(id=6, name='dog')]
    text = json.dumps(
        dict(images=images, annotations=annotations, categories=categories)
    )
    (tmp_path / 'ann.json').write_text(text)
    init_default_scope('mmdet')
    return scorer(coco_config(), str(tmp_path / 'ann.json'), tmp_path / 'img')


def coco_config() -> Config:
    return Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    data_root='elsewhere/',
                    ann_file='missing.json',
                    data_prefix=dict(img='imgs/'),
                    metainfo=dict(
                        classes=('cat', 'dog'),
                        palette=[(1, 1, 1), (2, 2, 2)],
                    ),
                )
            ),
            test_evaluator=dict(type='CocoMetric', metric=['bbox', 'segm']),
        )
    )


def det_sample(image: int, boxes: list, labels: list, masks: bool = True):
    from mmdet.structures import DetDataSample

    found = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.ones(len(labels)),
    )
    if masks:
        found.masks = torch.zeros(len(labels), 80, 100, dtype=torch.bool)
        for mask, (x, y, r, b) in zip(found.masks, boxes):
            mask[y:b, x:r] = True
    meta = dict(img_id=image, ori_shape=(80, 100))
    return DetDataSample(metainfo=meta, pred_instances=found)


def test_ap_per_image_and_over_all(coco: CocoScorer, capsys) -> None:
    right = coco.add(det_sample(1, BOXES, [0, 1]))
    assert right.means == {'box AP': 100, 'mask AP': 100}
    half = coco.add(det_sample(2, BOXES[:1], [0]))
    assert half.classes['cat']['box AP'] == 100
    assert half.classes['dog']['box AP'] == 0
    # Two cats of two are found, one dog of two (precision 1 to recall .5).
    total = coco.total()
    assert total.classes['cat'] == {'box AP': 100, 'mask AP': 100}
    assert total.classes['dog']['box AP'] == pytest.approx(50, abs=1)
    assert capsys.readouterr().out == ''


def test_ap_of_images_without_finds_or_objects(coco: CocoScorer) -> None:
    missed = coco.add(det_sample(1, [], []))
    assert missed.means == {'box AP': 0, 'mask AP': 0}
    empty = coco.add(det_sample(3, BOXES[:1], [0]))
    assert math.isnan(empty.means['box AP'])
    nothing = coco.add(det_sample(3, [], [], masks=False))
    assert list(nothing.means) == ['box AP']
    assert math.isnan(nothing.means['box AP'])


def test_folders_may_be_relative(
    coco: CocoScorer, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = coco_config()
    cfg.test_evaluator = dict(type=CocoMetric, metric='bbox')
    cfg.test_dataloader.dataset.type = 'mmdet.CocoDataset'
    for root in ('img', './img/', str(tmp_path / 'img')):
        found = scorer(cfg, 'ann.json', Path(root))
        for path in ('img/2.jpg', './img/2.jpg', str(tmp_path / 'img/2.jpg')):
            assert found.info(Path(path))['img_id'] == 2


def test_names_count_from_the_folder_of_the_config(
    coco: CocoScorer, tmp_path: Path
) -> None:
    # As new_project.py writes them: val.json lists val2017/1.jpg.
    content = json.loads((tmp_path / 'ann.json').read_text())
    for image in content['images']:
        image['file_name'] = f'val/{image["file_name"]}'
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    cfg = coco_config()
    cfg.test_dataloader.dataset.update(
        data_root='', data_prefix=dict(img=str(tmp_path / 'img'))
    )
    path = tmp_path / 'img/val/2.jpg'
    found = scorer(cfg, str(tmp_path / 'ann.json'), path.parent).info(path)
    assert (found['img_id'], found['img_path']) == (2, str(path))


def test_several_data_sets_have_no_labels_of_one_folder(
    coco: CocoScorer, tmp_path: Path
) -> None:
    cfg = coco_config()
    leaf = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(datasets=[leaf, leaf])
    with pytest.raises(ValueError, match='on 2 data sets at once'):
        scorer(cfg, str(tmp_path / 'ann.json'), tmp_path)


def test_labels_of_a_coco_file_are_found_or_named(
    coco: CocoScorer, tmp_path: Path
) -> None:
    info = coco.info(tmp_path / 'img/2.jpg')
    assert info['img_id'] == 2 and len(info['instances']) == 2
    assert len(coco.info(tmp_path / 'img/3.jpg')['instances']) == 0
    with pytest.raises(ValueError, match=r'ann\.json does not list it'):
        coco.info(tmp_path / 'img/9.jpg')
