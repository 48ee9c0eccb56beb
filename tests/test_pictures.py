"""Panels, the page and the scores, on pictures drawn here."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmconvnext.gallery import WIDTH, entry, page, worst_first
from mmconvnext.pictures import (
    CAPTION,
    GAP,
    Drawn,
    captioned,
    find_images,
    read_image,
    side_by_side,
    write_image,
)
from mmconvnext.scores import CocoScorer, MapScorer, Score, scorer


def picture(height: int = 40, width: int = 60, value: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def score(**classes: float) -> Score:
    rows = {name: {'IoU': value} for name, value in classes.items()}
    known = [value for value in classes.values() if not math.isnan(value)]
    mean = sum(known) / len(known) if known else math.nan
    return Score({'IoU': mean}, rows)


def test_panels_lie_side_by_side() -> None:
    row = side_by_side([picture(value=v) for v in (10, 20, 30)])
    assert row.shape == (40, 3 * 60 + 2 * GAP, 3)
    assert [row[0, 68 * i, 0] for i in range(3)] == [10, 20, 30]
    assert (row[:, 60:68] == 255).all()


def test_captions_stand_above_and_the_legend_below() -> None:
    panels = {'input': picture(), 'ground truth': picture()}
    plain = captioned(Drawn(panels))
    assert plain.shape == (40 + CAPTION, 128, 3)
    strip = plain[:CAPTION]
    assert (strip < 100).any() and (strip[:, 60:68] == 255).all()
    names = {f'class {i}': (0, 200, i) for i in range(7)}
    whole = captioned(Drawn(panels, legend=names))
    # One name of this length fits beside another in 128 pixels: 7 rows.
    assert whole.shape == (40 + 8 * CAPTION, 128, 3)
    for i in range(7):
        block = whole[40 + (i + 1) * CAPTION :][:CAPTION]
        assert (block == (0, 200, i)).all(-1).any()


def test_images_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ('b/x.JPG', 'a.png', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'')
    found = find_images(str(tmp_path))
    assert [p.name for p in found] == ['a.png', 'x.JPG']
    assert find_images(str(tmp_path / 'notes.txt')) == [tmp_path / 'notes.txt']
    with pytest.raises(FileNotFoundError, match='no image at gone'):
        find_images('gone')
    with pytest.raises(ValueError, match='not a readable image'):
        read_image(tmp_path / 'a.png')


def test_order_is_worst_first_and_unknown_last() -> None:
    drawn = {
        name: Drawn({'input': picture()}, value)
        for name, value in {
            'good': score(a=80),
            'none': score(a=math.nan),
            'bad': score(a=10),
            'also bad': score(a=10),
        }.items()
    }
    entries = [entry(name, d, thumbnail=False) for name, d in drawn.items()]
    names = [item.name for item in worst_first(entries)]
    assert names == ['also bad', 'bad', 'good', 'none']
    plain = [entry(n, Drawn({'input': picture()})) for n in 'ba']
    assert [item.name for item in worst_first(plain)] == ['a', 'b']


class Links(HTMLParser):
    """Collects tags, and attributes that make a browser load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.sources, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ('src', 'srcset', 'data', 'poster'):
                self.sources.append(value)
            elif name == 'href':
                self.links.append((tag, value))


NASTY = "dir/<b>&\"'x'.jpg"


def nasty_page() -> str:
    wide = picture(300, 1000)
    panels = {'input': wide, 'prediction': wide}
    entries = [
        entry(NASTY, Drawn(panels, score(sky=40.0, road=math.nan))),
        entry('y.jpg', Drawn({'input': picture()}, score(sky=1, road=2))),
    ]
    total = score(sky=30.25, road=math.nan)
    return page(
        'a <title>',
        entries,
        total,
        dict(sky=(1, 2, 3), road=(4, 5, 6)),
        'rule & so on',
        ['<script>alert(1)</script>: broken'],
    )


def test_page_needs_nothing_else() -> None:
    text = nasty_page()
    links = Links(text)
    assert len(links.sources) == 2
    assert all(s.startswith('data:image/webp;base64,') for s in links.sources)
    assert not {'link', 'iframe', 'object', 'embed', 'base'} & set(links.tags)
    assert {tag for tag, _ in links.links} == {'a'}
    assert "default-src 'none'; img-src data:;" in text
    assert not re.search(r'https?:|url\(|@import|fetch\(|XMLHttp', text)


def test_page_escapes_what_files_are_called() -> None:
    text = nasty_page()
    assert '<b>&"' not in text and '<title>a &lt;title&gt;</title>' in text
    assert Links(text).tags.count('script') == 1
    # The link must lead to the file, whatever its name.
    assert 'dir/%3Cb%3E%26%22%27x%27.jpg.png' in [
        link for _, link in Links(text).links
    ]


def test_page_shrinks_and_keeps_the_pictures() -> None:
    first, second = (
        cv2.imdecode(
            np.frombuffer(base64.b64decode(s.split(',')[1]), np.uint8), 1
        )
        for s in Links(nasty_page()).sources
    )
    assert first.shape == (round(300 * WIDTH / 2008), WIDTH, 3)
    assert second.shape == (40, 60, 3)
    assert abs(int(second[20, 30, 0]) - 90) < 4


def test_page_shows_classes_and_scores() -> None:
    text = nasty_page()
    assert re.search(r'rgb\(1, 2, 3\).*sky</td>\s*<td>30\.2</td>', text)
    assert re.search(r'road</td>\s*<td>–</td>', text)
    assert 'data-score="40.0" data-classes="40.00 nan"' in text
    assert '<span>input</span><span>prediction</span>' in text
    assert 'rule &amp; so on' in text
    plain = page('t', [entry('z', Drawn({'input': picture()}))])
    assert '<table>' not in plain and '<script>' not in plain


# ---------------------------------------------------------------- scores


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
    with pytest.raises(ValueError, match=r"\['mmseg', 'mmdet'\].*'mmpose'"):
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
    cfg = Config(
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
    return scorer(cfg, str(tmp_path / 'ann.json'), tmp_path / 'img')


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


def test_labels_of_a_coco_file_are_found_or_named(
    coco: CocoScorer, tmp_path: Path
) -> None:
    info = coco.info(tmp_path / 'img/2.jpg')
    assert info['img_id'] == 2 and len(info['instances']) == 2
    assert len(coco.info(tmp_path / 'img/3.jpg')['instances']) == 0
    with pytest.raises(ValueError, match=r'ann\.json does not list it'):
        coco.info(tmp_path / 'img/9.jpg')


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    write_image(picture(), tmp_path / 'deep/x.png')
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['x.png']
    (tmp_path / '.none.png').mkdir()
    with pytest.raises(OSError, match='cannot write'):
        write_image(picture(), tmp_path / 'none.png')
