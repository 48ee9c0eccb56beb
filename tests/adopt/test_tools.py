"""Every tool takes an adopted config: train, test, predict and the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from imports import import_tool
from runs import succeed
from tiny import DIMS

from mmconvnext.adopt import adopt, read
from mmconvnext.adopt.write import write

ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
# Projects on the adopted file: drawn data, two short steps.
COMMON = """
_base_ = '{base}'
size = (96, 96)
no_workers = dict(num_workers=0, persistent_workers=False, batch_size=1)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2,
                 val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(
    _delete_=True, type='CheckpointHook', interval=2, by_epoch=False))
log_processor = dict(by_epoch=False)
"""
DETECTION = """
metainfo = dict(
    classes=('disc', 'box', 'triangle', 'star', 'ring', 'cross'))
# Two steps make no score of 0.05, below which nothing is found, or scored.
model = dict(bbox_head=dict(num_classes=6), test_cfg=dict(score_thr=0.0))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
coco = dict(type='CocoDataset', data_root='{data}/coco', metainfo=metainfo,
            pipeline=pipeline, _delete_=True)
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'), batch_sampler=None, dataset=dict(
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'), **coco), **no_workers)
val_dataloader = dict(dataset=dict(
    ann_file='annotations/instances_val2017.json', test_mode=True,
    data_prefix=dict(img='val2017/'), **coco), **no_workers)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file='{data}/coco/annotations/instances_val2017.json')
test_evaluator = val_evaluator
"""
SEGMENTATION = """
metainfo = dict(
    classes=('grass', 'sand', 'water', 'disc', 'box', 'triangle', 'star',
             'ring', 'cross'), palette=[[i, i, 9 * i] for i in range(9)])
model = dict(
    data_preprocessor=dict(size=size), decode_head=dict(num_classes=9))
load = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=False)]
labels = dict(type='LoadAnnotations', reduce_zero_label=True)
maps = dict(type='BaseSegDataset', data_root='{data}/ade20k', _delete_=True,
            metainfo=metainfo, reduce_zero_label=True)
pack = dict(type='PackSegInputs')
train_dataloader = dict(dataset=dict(
    pipeline=[load[0], labels, load[1], pack], data_prefix=dict(
        img_path='images/training', seg_map_path='annotations/training'),
    **maps), **no_workers)
val_dataloader = dict(dataset=dict(
    pipeline=[*load, labels, pack], data_prefix=dict(
        img_path='images/validation', seg_map_path='annotations/validation'),
    **maps), **no_workers)
test_dataloader = val_dataloader
"""
# A weight for each class: of 9, and for no object.
QUERIES = (
    SEGMENTATION
    + """
model['decode_head'].update(
    num_queries=9, loss_cls=dict(class_weight=[1.0] * 9 + [0.1]))
"""
)
# config: its project, images, the metric that test.py prints
PROJECTS = {
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': (
        DETECTION,
        'coco/val2017',
        'bbox_mAP',
    ),
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py': (
        DETECTION,
        'coco/val2017',
        'bbox_mAP',
    ),
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': (
        SEGMENTATION,
        'ade20k/images/validation',
        'mIoU',
    ),
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': (
        QUERIES,
        'ade20k/images/validation',
        'mIoU',
    ),
}


# One of each host; with the others only what depends on heads.
ALL_TOOLS = [
    name for name in PROJECTS if 'fcos' in name or 'former/mask' in name
]


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=4, val=2)
    return out


def make_project(name: str, demo: Path, folder: Path) -> Path:
    host = read(name)
    cfg, report = adopt(host, ARCH, weights='none')
    write(cfg, report, host, folder / 'adopted.py')
    text = (COMMON + PROJECTS[name][0]).format(base='adopted.py', data=demo)
    project = folder / 'project.py'
    project.write_text(text, encoding='utf-8')
    return project


@pytest.mark.slow
@pytest.mark.parametrize('name', PROJECTS, ids=lambda name: name.split('/')[0])
def test_every_tool_takes_an_adopted_config(
    name: str, demo: Path, tmp_path: Path
) -> None:
    cfg, images = make_project(name, demo, tmp_path), demo / PROJECTS[name][1]
    checkpoint = tmp_path / 'iter_2.pth'

    def run(tool: str, *args: Any) -> str:
        return succeed(f'tools/{tool}.py', *args)

    run('train', cfg, '--work-dir', tmp_path)
    assert PROJECTS[name][2] in run(
        'test', cfg, checkpoint, '--work-dir', tmp_path
    )
    run('predict', cfg, checkpoint, images, '--out', tmp_path / 'predicted')
    assert len([*(tmp_path / 'predicted').glob('*.png')]) == 2
    if name not in ALL_TOOLS:
        return
    run('browse_dataset', cfg, '--out', tmp_path / 'seen', '--number', '2')
    assert len([*(tmp_path / 'seen').iterdir()]) == 2
    assert 'FLOPs' in run('get_complexity', cfg, '--shape', '96', '96')
    run('analyze_features', images, checkpoint, '--out', tmp_path / 'features')
    assert (tmp_path / 'features' / 'distance.png').is_file()
    # Ends with 1 where something does not fit.
    run('doctor', '--config', cfg)
