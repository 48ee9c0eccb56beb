"""The hook that measures nearest neighbours, in real training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import masked
import numpy as np
import pytest
import torch
from labelled import write
from mmengine.config import Config
from mmengine.runner import Runner
from runs import ROOT, rank_losses

from mmconvnext import KNNHook, checkpoint
from mmconvnext.analysis import class_images, knn
from mmconvnext.training.screen import ScreenHook

CONFIG = ROOT / 'configs/fcmae_convnextv2_atto_camvid.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Eight images of two classes, a few pixels larger than is seen."""
    root = tmp_path_factory.mktemp('data')
    for part, count in (('train', 4), ('val', 2)):
        for k, name in enumerate(('dark', 'light')):
            for i in range(count):
                rng = np.random.default_rng([k, i, count])
                noise = rng.integers(90 * k, 160 + 90 * k, (68, 70, 3))
                write(root / part / name / f'{i}.png', noise.astype('u1'))
    return root


def hook(folder: Path, **options: Any) -> dict:
    small = dict(interval=2, k=3, size=64, batch_size=3, num_workers=0)
    return dict(
        type='mmconvnext.KNNHook',
        data_root=str(folder),
        **{**small, **options},
    )


def config(folder: Path, work_dir: Path, *hooks: dict) -> Config:
    """Pre-training for three epochs of four iterations."""
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.update(batch_size=2, num_workers=0)
    cfg.train_dataloader.dataset.update(
        data_root=str(folder), data_prefix=dict(img_path='train')
    )
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    cfg.model.backbone.update(arch=masked.TINY, drop_path_rate=0.2)
    cfg.model.decoder_dim = 16
    cfg.train_cfg.max_epochs = 3
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0)]
    cfg.default_hooks.checkpoint.interval = 1
    cfg.default_hooks.logger.interval = 1
    cfg.custom_hooks = list(hooks)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = str(work_dir).replace('/', '_')
    # mmengine keeps one visualizer per name.
    cfg.visualizer.name = cfg.experiment_name
    return cfg


def train(cfg: Config, *extra: Any) -> Runner:
    runner = Runner.from_cfg(cfg)
    for each in extra:
        runner.register_hook(each)
    runner.train()
    return runner


def rows(work_dir: Path) -> List[dict]:
    return [
        json.loads(line)
        for file in sorted(work_dir.rglob('scalars.json'))
        for line in file.read_text().splitlines()
    ]


def losses(work_dir: Path) -> List[tuple]:
    found = [row for row in rows(work_dir) if 'loss' in row]
    return [(row['iter'], row['loss']) for row in found]


def measured(work_dir: Path) -> Dict[int, dict]:
    """Return what the hook logged, by step."""
    found = [row for row in rows(work_dir) if 'knn/top1' in row]
    return {row['step']: row for row in found}


def test_training_is_as_without_it(folder: Path, tmp_path: Path) -> None:
    runs = []
    for name, hooks in (
        ('without', []),
        ('with', [hook(folder, interval=1)]),
    ):
        runner = train(config(folder, tmp_path / name, *hooks))
        modes = [m.training for m in runner.model.modules()]
        state = runner.model.state_dict()
        row = losses(tmp_path / name), torch.get_rng_state(), modes
        runs.append((*row, np.random.get_state()[1], state))
    assert len(runs[0][0]) == 12 and len(set(runs[0][0])) == 12
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][2] == runs[1][2] and all(runs[0][2])
    assert (runs[0][3] == runs[1][3]).all()
    for key, value in runs[0][4].items():
        assert torch.equal(value, runs[1][4][key]), key


def test_what_is_logged_is_what_a_checkpoint_has(
    folder: Path, tmp_path: Path, capsys
) -> None:
    runner = train(config(folder, tmp_path, hook(folder)), ScreenHook())
    found = measured(tmp_path)
    assert list(found) == [2, 3]  # the interval, and the last epoch
    log = next(tmp_path.rglob('*.log')).read_text()
    settings = class_images.Settings(
        str(folder), k=(3,), size=64, num_workers=0
    )
    parts = class_images.open_data(settings)
    for epoch, row in found.items():
        path = tmp_path / f'epoch_{epoch}.pth'
        if path.is_file():
            backbone = checkpoint.build(path)
            result = knn.measure(backbone, parts, settings)
            assert result.accuracy[3]['top1'] == row['knn/top1']
        value = f'{row["knn/top1"]:.2f}'
        assert f'knn/top1: {value} after epoch {epoch} (8 images' in log
    assert (tmp_path / 'epoch_3.pth').is_file()
    shown = capsys.readouterr().out
    assert f'knn/top1 {value}' in shown  # the line, from epoch 2 on
    assert f'knn/top1  {value}' in shown  # the table at the end
    assert 'knn/top5' not in found[2]  # of two classes
    assert (
        runner.message_hub.get_scalar('knn/top1').current()
        == (row['knn/top1'])
    )


def test_iterations_may_be_counted(folder: Path, tmp_path: Path) -> None:
    cfg = config(folder, tmp_path, hook(folder, interval=5, by_epoch=False))
    train(cfg)
    assert list(measured(tmp_path)) == [5, 10, 12]


def test_any_model_with_a_backbone_is_measured(
    folder: Path, tmp_path: Path
) -> None:
    """With its own mean, and without its classifier."""
    cfg = config(folder, tmp_path, hook(folder, interval=1))
    mean = [10.0, 20.0, 30.0]
    cfg.model = dict(
        type='mmconvnext.ImageClassifier',
        data_preprocessor=dict(
            type='ImgDataPreprocessor', mean=mean, std=[50.0] * 3
        ),
        backbone=dict(type='mmconvnext.ConvNeXt', arch=masked.TINY),
        num_classes=2,
    )
    cfg.train_dataloader.dataset.update(
        type='mmconvnext.ClassFolderDataset',
        pipeline=[
            dict(type='mmconvnext.LoadImage'),
            dict(type='mmconvnext.RandomResizedCrop', scale=64),
            dict(type='mmconvnext.PackClass'),
        ],
    )
    cfg.train_cfg.max_epochs = 1
    runner = train(cfg)
    (own,) = (h for h in runner.hooks if isinstance(h, KNNHook))
    assert own.settings.mean == tuple(mean)
    assert own.settings.std == (50.0,) * 3
    assert list(measured(tmp_path)) == [1]


def test_a_damaged_image_is_named_in_the_log(tmp_path: Path) -> None:
    for part in ('train', 'val'):
        for name in ('a', 'b'):
            for i in range(4):
                noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3))
                path = tmp_path / 'data' / part / name / f'{i}.png'
                write(path, noise.astype('u1'))
    path.write_bytes(b'no picture')
    cfg = config(tmp_path / 'data', tmp_path / 'run', hook(tmp_path / 'data'))
    train(cfg)
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert f'left out of knn: {path}: not a readable image' in log


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(val='gone'), 'gone not found: it must be a folder of class'),
        (dict(k=99), 'number of training images, 8, got 99'),
        (dict(k=0), r'k must be 1 or more, got \[0\]'),
        (dict(interval=0), 'interval must be at least 1, got 0'),
        (dict(crop_ratio=2.0), r'crop_ratio must be in \(0, 1\], got 2.0'),
    ],
)
def test_before_training_folders_are_checked(
    folder: Path, tmp_path: Path, options: dict, message: str
) -> None:
    cfg = config(folder, tmp_path, hook(folder, **options))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(cfg)
    assert not losses(tmp_path)


def test_a_model_that_cannot_be_measured_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    own = KNNHook(str(folder))
    runner = Runner.from_cfg(config(folder, tmp_path))

    class FullySharded(torch.nn.Module):
        pass

    for model, message in (
        (torch.nn.Linear(2, 2), 'must have one ConvNeXt backbone'),
        (FullySharded(), 'sharded model; measure checkpoints'),
    ):
        runner.model = model
        with pytest.raises(ValueError, match=message):
            own.before_train(runner)
    runner.model = Runner.from_cfg(config(folder, tmp_path / 'b')).model
    runner.model.backbone.in_channels = 4
    with pytest.raises(ValueError, match='the backbone takes 4 channels'):
        own.before_train(runner)


TWO = """
_base_ = '{base}'
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
custom_hooks = [dict(type='LossFile'), {hook}]
"""


@pytest.mark.slow
def test_two_processes_neither_hang_nor_differ(
    folder: Path, tmp_path: Path
) -> None:
    """The first measures while the second goes on to its next step."""
    found = []
    for name, own in (('without', ''), ('with', hook(folder, interval=1))):
        cfg = config(folder, tmp_path / name)
        cfg.dump(tmp_path / 'base.py')
        path = tmp_path / f'{name}.py'
        path.write_text(TWO.format(base=tmp_path / 'base.py', hook=own))
        launcher = ['-m', 'torch.distributed.run', '--standalone']
        done = subprocess.run(
            [
                sys.executable,
                *launcher,
                '--nproc_per_node=2',
                str(ROOT / 'tests/gloo.py'),
                str(path),
                f'--work-dir={tmp_path / name}',
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found.append(rank_losses(tmp_path / name))
    assert found[0] == found[1] and len(found[0]) == 6
    assert list(measured(tmp_path / 'with')) == [1, 2, 3]
