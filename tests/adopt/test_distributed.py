"""Two gloo processes train adopted detectors, without options for it.

Pyramids that start at stride 8 leave the first map unread: a parameter
without a gradient would stop DistributedDataParallel in the second step.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from imports import import_tool
from mmengine.config import Config
from runs import rank_losses
from tiny import DIMS

from mmconvnext.adopt import adopt, read
from mmconvnext.adopt.write import write

ROOT = Path(__file__).parents[2]
ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
# config: whether the pyramid leaves an output unread
NAMES = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': True,
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': True,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': False,
}
# A project on the adopted file: other data, four short steps.
PROJECT = """
_base_ = '{base}'
metainfo = dict(
    classes=('disc', 'box', 'triangle', 'star', 'ring', 'cross'))
model = dict(bbox_head=dict(num_classes=6))
# without the device that mmengine's default wrapper names
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
custom_hooks = [dict(type='LossFile')]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=False),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    _delete_=True, batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root='{data}', metainfo=metainfo,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'), pipeline=train_pipeline))
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)
param_scheduler = []
"""


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=8, val=2)
    return out / 'coco'


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES, ids=lambda name: name.split('/')[0])
def test_adopted_detector_trains_in_two_processes(
    name: str, demo: Path, tmp_path: Path
) -> None:
    host = read(f'mmdet::{name}')
    cfg, report = adopt(host, ARCH, weights='none')
    adopted = tmp_path / 'adopted.py'
    write(cfg, report, host, adopted)
    project = tmp_path / 'project.py'
    project.write_text(
        PROJECT.format(base=adopted, data=demo), encoding='utf-8'
    )
    assert (cfg.model.neck.get('start_level', 0) > 0) == NAMES[name]
    assert 'find_unused_parameters' not in Config.fromfile(project)
    launch = '-m torch.distributed.run --standalone --nproc_per_node=2'
    done = subprocess.run(
        [sys.executable, *launch.split(), str(ROOT / 'tests' / 'gloo.py')]
        + [str(project), f'--work-dir={tmp_path}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = rank_losses(tmp_path)
    assert len(found) == 4
    assert all(0 < row['loss'] < float('inf') for row in found)
