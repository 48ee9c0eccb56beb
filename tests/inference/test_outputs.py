"""What a test writes of every image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from drawn import picture
from mmengine.config import Config

from mmconvnext.files import write_image
from mmconvnext.inference import outputs
from mmconvnext.inference.outputs import (
    LabelMapWriter,
    PictureHook,
    add_pictures,
    add_predictions,
    name_below,
    roots,
)


@pytest.mark.parametrize(
    ('path', 'folders', 'name'),
    [
        ('/d/img/0.jpg', ['/d/img'], '0.jpg'),
        ('/d/img/city/0.jpg', ['/d/img'], 'city/0.jpg'),
        ('/d/a/img/0.jpg', ['/d/a/img', '/d/b/img'], 'a/img/0.jpg'),
        ('/elsewhere/0.jpg', ['/d/img'], 'elsewhere/0.jpg'),
        ('/d/img2/0.jpg', ['/d/img'], 'd/img2/0.jpg'),
        ('/d/0.jpg', [], 'd/0.jpg'),
    ],
)
def test_names_keep_the_folders(path: str, folders: list, name: str) -> None:
    assert name_below(path, folders) == Path(name)


def concatenated(**leaf) -> Config:
    leaves = [
        dict(data_root='data/a', data_prefix=dict(img_path='img'), **leaf),
        dict(data_root='data/b', data_prefix='img', **leaf),
    ]
    return Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(dataset=dict(datasets=leaves)),
            test_evaluator=dict(type='IoUMetric'),
        )
    )


def test_several_data_sets_and_evaluators(tmp_path: Path) -> None:
    cfg = concatenated()
    here = [str(Path(f'data/{x}/img').absolute()) for x in 'ab']
    assert roots(cfg) == here
    add_predictions(cfg, 'maps')
    add_predictions(cfg, 'x.pkl')
    add_pictures(cfg, 'show')
    kinds = [row.type for row in cfg.test_evaluator]
    assert kinds == ['IoUMetric', 'mmconvnext.LabelMapWriter', 'DumpResults']
    assert cfg.custom_hooks[0].roots == here
    cfg.default_scope = 'mmdet'
    with pytest.raises(ValueError, match='must end in .pkl, got maps'):
        add_predictions(cfg, 'maps')
    cfg.default_scope = 'mmengine'
    with pytest.raises(ValueError, match='of a classifier must end in .pkl'):
        add_predictions(cfg, 'maps')


@pytest.mark.parametrize('zero', [False, True])
def test_maps_of_one_name_do_not_meet(tmp_path: Path, zero: bool) -> None:
    writer = LabelMapWriter(str(tmp_path / 'out'), ['/d'])
    for city, value in (('a', 3), ('b', 300)):
        data = torch.full((1, 4, 6), value)
        sample = dict(
            img_path=f'/d/{city}/0.jpg',
            pred_sem_seg=dict(data=data),
            reduce_zero_label=zero,
        )
        writer.process({}, [sample])
    files = sorted((tmp_path / 'out').rglob('*.png'))
    names = [str(file.relative_to(tmp_path / 'out')) for file in files]
    assert names == ['a/0.png', 'b/0.png']
    a, b = (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files)
    assert a.shape == (4, 6) and a.dtype == np.uint8 and b.dtype == np.uint16
    assert (a == 3 + zero).all() and (b == 300 + zero).all()
    assert writer.evaluate(2) == {}


def test_pictures_of_one_name_do_not_meet(tmp_path: Path, monkeypatch) -> None:
    class Sample(dict):
        img_path = ''

    drawn = []

    class Drawing:
        def __init__(self, cfg, loader) -> None:
            assert loader == 'test_dataloader'

        def draw(self, image, sample, **options) -> np.ndarray:
            drawn.append((image.mean(), options))
            return image

    monkeypatch.setattr(outputs, 'Painter', Drawing)
    hook = PictureHook(str(tmp_path / 'out'), [str(tmp_path)], 0.4)
    runner = SimpleNamespace(cfg=Config())
    for i, name in enumerate(('a/0.png', 'b/0.png', 'b/0.tif')):
        sample = Sample()
        sample.img_path = str(tmp_path / name)
        write_image(picture(value=10 + i), Path(sample.img_path))
        hook.after_test_iter(runner, i, outputs=[sample])
    out = tmp_path / 'out'
    names = [p.relative_to(out).as_posix() for p in out.rglob('*.png')]
    assert sorted(names) == ['a/0.png', 'b/0.png', 'b/0.tif.png']
    options = dict(draw_gt=False, pred_score_thr=0.4)
    assert drawn == [(10, options), (11, options), (12, options)]
