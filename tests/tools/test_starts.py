"""Files that training and its continuation start from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from imports import import_tool
from tiny import DIMS, ROOT

CONFIG = ROOT / 'configs/upernet_convnextv2_atto_demo.py'
OPTIONS = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'param_scheduler.1.end=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    f'model.decode_head.in_channels="{DIMS}"',
    f'model.auxiliary_head.in_channels={DIMS[2]}',
]


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=4, val=1)
    return out / 'ade20k'


def train(demo: Path, work_dir: Path, *options: str, resume: bool = False):
    """Run tools/train.py in this process; returns the log of the run."""
    config = work_dir.parent / 'config.py'
    arch = f'dict(_delete_=True, depths=[1] * 4, dims={DIMS})'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        f'model = dict(backbone=dict(arch={arch}))\n',
        encoding='utf-8',
    )
    argv = ['train.py', str(config), f'--data-root={demo}']
    argv += [f'--work-dir={work_dir}', *['--resume'] * resume]
    argv += ['--cfg-options', *OPTIONS, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', argv)
        import_tool('train').main()
    return max(work_dir.glob('*/*.log')).read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def trained(demo: Path, tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('run') / 'work'
    train(demo, work_dir)
    return work_dir


@pytest.mark.slow
def test_a_longer_run_is_not_resumed_at_rate_zero(
    demo: Path, trained: Path
) -> None:
    longer = ['train_cfg.max_iters=4', 'param_scheduler.1.end=4']
    pattern = (
        r'--resume .*iter_2\.pth: the schedule in the checkpoint ends after 2 '
        r'iterations, the run after 4'
    )
    with pytest.raises(SystemExit, match=pattern):
        train(demo, trained, *longer, resume=True)
    assert not (trained / 'iter_4.pth').exists()


def test_what_the_checkpoint_decides_is_said(
    demo: Path, trained: Path
) -> None:
    other = ['optim_wrapper.optimizer.lr=0.5', 'train_dataloader.batch_size=3']
    log = train(demo, trained, *other, resume=True)
    assert 'resuming: optimiser: optim_wrapper.optimizer.lr is ' in log
    assert "0.5 in the config; the checkpoint's is used" in log
    assert "3 in the config; the config's is used" in log


def test_a_run_starts_from_a_model_with_other_classes(
    demo: Path, trained: Path, tmp_path: Path
) -> None:
    raw = torch.load(trained / 'iter_2.pth', weights_only=False)
    for head in ('decode_head', 'auxiliary_head'):
        for name in ('weight', 'bias'):
            value = raw['state_dict'][f'{head}.conv_seg.{name}']
            raw['state_dict'][f'{head}.conv_seg.{name}'] = value[:3]
    path = tmp_path / 'three_classes.pth'
    torch.save(raw, path)
    log = train(demo, tmp_path / 'work', f'load_from={path}')
    assert 'for other classes: decode_head.conv_seg.weight: ' in log
    assert '64 of 64 tensors' in log


def test_a_run_does_not_start_from_a_file_that_does_not_fit(
    demo: Path, trained: Path, tmp_path: Path
) -> None:
    state = torch.load(trained / 'iter_2.pth', weights_only=False)
    state['state_dict'].pop('backbone.norm1.bias')
    path = tmp_path / 'half.pth'
    torch.save(state, path)
    pattern = r'load_from: .*half\.pth does not fit .*backbone\.norm1\.bias'
    with pytest.raises(SystemExit, match=pattern):
        train(demo, tmp_path / 'work', f'load_from={path}')
    with pytest.raises(SystemExit, match=r'half\.pth does not fit'):
        train(
            demo,
            tmp_path / 'work',
            f'load_from={path}',
            'resume=True',
        )
