"""The tools with configs that are written otherwise than ours.

A detector of one stage with boxes only and scoped types, and a segmentor
whose types are classes, as in mmengine's pure-Python configs.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from imports import import_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny import DIMS, load

from mmconvnext.analysis.complexity import complexity, default_shape

ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
CLASSES = ('disc', 'box', 'triangle', 'star', 'ring', 'cross')
SEGMENTOR = """
from mmengine.dataset import DefaultSampler
from mmengine.runner import TestLoop
from mmseg.datasets import BaseSegDataset, LoadAnnotations, PackSegInputs
from mmseg.evaluation import IoUMetric
from mmseg.models import FCNHead, EncoderDecoder, SegDataPreProcessor
from mmseg.visualization import SegLocalVisualizer
from mmcv.transforms import LoadImageFromFile, Resize
from mmconvnext import ConvNeXtV2

pipeline = [
    dict(type=LoadImageFromFile), dict(type=Resize, scale=(96, 64)),
    dict(type=LoadAnnotations), dict(type=PackSegInputs)]
dataset = dict(
    type=BaseSegDataset, data_root={root!r}, pipeline=pipeline,
    reduce_zero_label=True,
    data_prefix=dict(img_path='images/validation',
                     seg_map_path='annotations/validation'),
    metainfo=dict(classes={classes!r}, palette={palette!r}))
test_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dataset,
    sampler=dict(type=DefaultSampler, shuffle=False))
test_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_cfg = dict(type=TestLoop)
visualizer = dict(type=SegLocalVisualizer)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor, size=(64, 64), bgr_to_rgb=True),
    backbone=dict(type=ConvNeXtV2, arch={arch!r}),
    decode_head=dict(
        type=FCNHead, in_channels={last}, channels=8, num_convs=1,
        in_index=3, num_classes={number}),
    test_cfg=dict(mode='whole'))
"""


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    """Drawn scenes, the detection half of them without masks."""
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=2, val=2)
    for file in (out / 'coco/annotations').glob('*.json'):
        content = json.loads(file.read_text(encoding='utf-8'))
        for row in content['annotations']:
            row['segmentation'] = []
        file.write_text(json.dumps(content), encoding='utf-8')
    return out


def detector(demo: Path) -> Config:
    cfg = load('mask_rcnn_convnextv2_atto_demo.py')
    roi = cfg.model.roi_head
    cfg.model = dict(
        type='mmdet.RetinaNet',
        data_preprocessor=dict(cfg.model.data_preprocessor, pad_mask=False),
        backbone=dict(
            type='mmconvnext.ConvNeXtV2', arch=ARCH, out_indices=(1, 2, 3)
        ),
        neck=dict(
            type='FPN', in_channels=DIMS[1:], out_channels=8, num_outs=3
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=len(CLASSES),
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator',
                scales=[4],
                ratios=[1.0],
                strides=[8, 16, 32],
            ),
            bbox_coder=roi.bbox_head.get('bbox_coder')
            or dict(type='DeltaXYWHBBoxCoder'),
        ),
        test_cfg=dict(
            nms_pre=100,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=20,
        ),
    )
    boxes = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    pack = dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'),
    )
    pack['meta_keys'] += ('scale_factor',)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(num_workers=0, persistent_workers=False)
        leaf = cfg[loader].dataset
        leaf.update(data_root=str(demo / 'coco'))
        leaf.pipeline = [
            dict(type='mmcv.LoadImageFromFile'),
            dict(type='mmdet.Resize', scale_factor=0.5, keep_ratio=True),
            boxes,
            pack,
        ]
    file = str(demo / 'coco/annotations/instances_val2017.json')
    cfg.test_evaluator = [
        dict(type='mmdet.CocoMetric', ann_file=file, metric='bbox')
    ]
    cfg.val_evaluator = cfg.test_evaluator
    return cfg


def segmentor_text(demo: Path) -> str:
    cfg = load('upernet_convnextv2_atto_demo.py')
    meta = cfg.test_dataloader.dataset.metainfo
    return SEGMENTOR.format(
        root=str(demo / 'ade20k'),
        classes=tuple(meta.classes),
        palette=[list(map(int, row)) for row in meta.palette],
        number=len(meta.classes),
        arch=ARCH,
        last=DIMS[-1],
    )


@pytest.fixture(params=['detector', 'segmentor'])
def case(request, demo: Path, tmp_path: Path, monkeypatch) -> str:
    """Write ``config.py`` and ``model.pth`` to the working folder."""
    monkeypatch.chdir(tmp_path)
    if request.param == 'detector':
        detector(demo).dump('config.py')
    else:
        Path('config.py').write_text(segmentor_text(demo), encoding='utf-8')
    cfg = Config.fromfile('config.py')
    init_default_scope('mmdet' if request.param == 'detector' else 'mmseg')
    torch.save(
        dict(state_dict=MODELS.build(cfg.model).state_dict()), 'model.pth'
    )
    return request.param


def run(monkeypatch, tool: str, *args: object) -> None:
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, args)])
    import_tool(tool).main()


def test_metrics_come_first_and_the_description_after(
    case: str, demo: Path, monkeypatch, capsys
) -> None:
    names = ('config.py', 'model.pth', '--work-dir=work', '--show-dir=show')
    out = 'maps' if case == 'segmentor' else 'boxes.pkl'
    run(monkeypatch, 'test', *names, f'--out={out}')
    lines = capsys.readouterr().out.splitlines()
    metric = {'detector': 'coco/bbox_mAP: ', 'segmentor': 'mIoU: '}[case]
    at = next(i for i, line in enumerate(lines) if line.startswith(metric))
    last = next(i for i, row in enumerate(lines) if row[:10] == 'protocol: ')
    assert at < last
    words = {'detector': 'boxes, flip off, scales x0.5', 'segmentor': 'whole'}
    assert words[case] in lines[last]
    assert len(list(Path('show').rglob('*.png'))) == 2
    assert Path(out).exists()


def test_predict_with_relative_labels(
    case: str, demo: Path, monkeypatch, capsys
) -> None:
    folder, labels = {
        'detector': (
            'coco/val2017',
            'coco/annotations/instances_val2017.json',
        ),
        'segmentor': (
            'ade20k/images/validation',
            'ade20k/annotations/validation',
        ),
    }[case]
    shutil.copytree(demo, 'data')
    names = ('config.py', 'model.pth', f'data/{folder}', '--out=out')
    run(monkeypatch, 'predict', *names, '--labels', f'data/{labels}')
    assert 'class' in capsys.readouterr().out
    scores = json.loads(Path('out/scores.json').read_text(encoding='utf-8'))
    assert len(scores['images']) == 2
    assert set(scores['mean']) == (
        {'box AP'} if case == 'detector' else {'IoU', 'Acc'}
    )


def test_a_file_that_does_not_fit_stops_the_tools(
    case: str, demo: Path, monkeypatch
) -> None:
    torch.save(dict(state_dict={'backbone.x': torch.ones(1)}), 'model.pth')
    names = ('config.py', 'model.pth')
    for tool, rest in (
        ('test', ['--work-dir=work']),
        ('predict', [demo / 'coco/val2017', '--out=out']),
    ):
        with pytest.raises(SystemExit, match=r'model\.pth does not fit'):
            run(monkeypatch, tool, *names, *rest)
    assert not Path('out').exists()


def test_boxes_are_browsed_and_counted(
    demo: Path, monkeypatch, capsys
) -> None:
    out = demo.parent / 'browse'
    detector(demo).dump(out.with_suffix('.py'))
    args = (out.with_suffix('.py'), f'--out={out}', '--number=2')
    run(monkeypatch, 'browse_dataset', *args)
    assert 'objects' in capsys.readouterr().out
    cfg = detector(demo)
    found = complexity(cfg, default_shape(cfg))
    assert list(found.parts) == ['backbone', 'neck', 'bbox_head']
    assert default_shape(cfg) == (800, 1280)
    boxes = load('mask_rcnn_convnextv2_atto_demo.py')
    whole = complexity(boxes, (64, 64))
    boxes.model.roi_head.mask_head = None
    parts = complexity(boxes, (64, 64)).parts
    mask = whole.parts['mask_head']
    assert {**parts, 'mask_head': mask} == whole.parts
