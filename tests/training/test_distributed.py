"""Two processes match one with twice the batch, also after resuming.

Everything random is off, and so are statistics over a batch: on a CPU batch
norm sees only the images of its process (synchronised batch norm needs GPUs),
so the heads use group norm. The host's samplers take the first candidates,
one positive and fifteen negatives per image, because each process divides by
its own counts.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
import torch
from imports import import_tool
from runs import rank_losses as losses

ROOT = Path(__file__).parents[2]
COMMON = """
_base_ = '{base}'
# without the device that mmengine's default wrapper names
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel', device_ids=None,
    broadcast_buffers=False)
custom_hooks = [
    dict(type='mmconvnext.ExactResumeHook'), dict(type='LossFile')]
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
# Adam would scale the float noise of the smallest gradients up to its rate.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.002, momentum=0.9))
default_hooks = dict(
    checkpoint=dict(interval={half}, save_best=None, max_keep_ckpts=9),
    logger=dict(interval=1))
"""
UPERNET = """
norm_cfg = dict(type='GN', num_groups=4)
model = dict(
    data_preprocessor=dict(size=(96, 96)),
    backbone=dict(drop_path_rate=0.0),
    decode_head=dict(dropout_ratio=0.0, norm_cfg=norm_cfg),
    auxiliary_head=dict(dropout_ratio=0.0, norm_cfg=norm_cfg))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=False),
    dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters=6, val_interval=100)
"""
MASK_RCNN = """
sampler = dict(
    type='FirstSampler', num=16, neg_pos_ub=-1, pos_fraction=1 / 16)
model = dict(
    backbone=dict(drop_path_rate=0.0),
    train_cfg=dict(
        rpn=dict(sampler=sampler), rcnn=dict(sampler=sampler)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=False),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_sampler=None, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=2, val_interval=100)
"""
# config: overrides, folder of the data, checkpoint interval, its file, last
CASES = {
    'upernet_convnextv2_atto_demo': (
        UPERNET,
        'ade20k',
        3,
        'iter_3.pth',
        'iter_6.pth',
    ),
    'mask_rcnn_convnextv2_atto_demo': (
        MASK_RCNN,
        'coco',
        1,
        'epoch_1.pth',
        'epoch_2.pth',
    ),
}


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=8, val=2)
    return out


def train(
    config: Path, data: Path, work_dir: Path, processes: int, *options: str
) -> None:
    """Train at batch 2 over 1 or 2 processes."""
    launcher = ['-m', 'torch.distributed.run', '--standalone']
    command = [
        sys.executable,
        *(launcher + ['--nproc_per_node=2'] if processes == 2 else []),
        ROOT / 'tests' / 'gloo.py',
        config,
        f'--data-root={data}',
        f'--work-dir={work_dir}',
        *(['--first-sampler'] if 'rcnn' in config.name else []),
        *options,
        '--cfg-options',
        f'train_dataloader.batch_size={2 // processes}',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    ]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


# Sums in another order: limits of losses, and of weights after the run. Fresh
# RPN scores are nearly equal, and noise that changes their order makes Mask
# R-CNN see other RoIs; a wrong average over processes is off by a factor.
LIMITS = {'upernet': (2e-5, 5e-3), 'mask_rcnn': (5e-3, 0.1)}


def assert_same(name: str, found: List[dict], expected: List[dict]) -> None:
    noise = LIMITS[name.split('_convnext')[0]][0]
    assert [row['iter'] for row in found] == [row['iter'] for row in expected]
    for row, other in zip(found, expected):
        for key in (key for key in other if 'loss' in key):
            assert row[key] == pytest.approx(other[key], rel=noise), (
                key,
                row['iter'],
            )


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_two_processes_are_one(name: str, demo: Path, tmp_path: Path) -> None:
    overrides, folder, half, middle, last = CASES[name]
    config = tmp_path / f'{name}.py'
    base = ROOT / 'configs' / f'{name}.py'
    text = COMMON.format(base=base, half=half) + overrides
    config.write_text(text)
    data = demo / folder
    one, two = tmp_path / 'one', tmp_path / 'two'
    train(config, data, one, 1)
    train(config, data, two, 2)
    expected = losses(one)
    assert len({row['loss'] for row in expected}) == len(expected) > 4
    assert_same(name, losses(two), expected)
    states = [
        torch.load(path / last, weights_only=False)['state_dict']
        for path in (one, two)
    ]
    for key, value in states[0].items():
        if value.is_floating_point():
            # What starts at zero holds these few steps and no more.
            limit = LIMITS[name.split('_convnext')[0]][1] * value.norm()
            assert (states[1][key] - value).norm() <= limit, key
    # Two processes resume where one stopped, and the other way round.
    rest = [row for row in expected if row['iter'] >= len(expected) // 2]
    for source, processes in ((one, 2), (two, 1)):
        target = tmp_path / f'resumed{processes}'
        train(config, data, target, processes, '--resume', source / middle)
        assert_same(name, losses(target), rest)
