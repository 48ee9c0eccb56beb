"""Classifiers by tools/train.py: EMA, resuming, and what follows on them."""

from pathlib import Path

import pytest
import torch
from labelled import image, write
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import ROOT, losses, succeed

from mmconvnext import ConvNeXtV2, checkpoint

CONFIG = ROOT / 'configs/finetune_convnextv2_atto_signs.py'
EPOCHS = 2
OPTIONS = [
    'model.num_classes=2',
    f'train_cfg.max_epochs={EPOCHS}',
    'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=4',
    'train_dataloader.dataset.pipeline.1.scale=32',
    'val_dataloader.dataset.pipeline.1.scale=32',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    f'param_scheduler.1.end={EPOCHS}',
    'model.data_preprocessor.erase_prob=0.5',
]


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> Path:
    """Bright and dark noise: what separates them is learnt at once."""
    root = tmp_path_factory.mktemp('classes')
    for split, count in (('train', 8), ('val', 4)):
        for name, factor in (('dark', 4), ('light', 1)):
            for i in range(count):
                picture = image(i) // factor
                write(root / split / name / f'{i}.jpg', picture)
    return root


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """The recipe with a third hook, which --cfg-options cannot append."""
    path = tmp_path_factory.mktemp('config') / 'small.py'
    path.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        'model = dict(mixing=dict(mixup=0.8, cutmix=1.0))\n'
        'custom_hooks = [*_base_.custom_hooks, _base_.ema]\n',
        encoding='utf-8',
    )
    return path


def train(config: Path, folders: Path, work_dir: Path, *options: str) -> str:
    return succeed(
        'tools/train.py',
        config,
        f'--data-root={folders}',
        f'--work-dir={work_dir}',
        *(o for o in options if o.startswith('--')),
        '--cfg-options',
        *OPTIONS,
        *(o for o in options if not o.startswith('--')),
    )


@pytest.fixture(scope='module')
def trained(config: Path, folders: Path, tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('run')
    out = train(config, folders, work_dir)
    assert '2 classes: dark, light' in out
    assert 'accuracy/top1' in out
    return work_dir


def states(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=False)


@pytest.mark.slow
def test_the_average_is_tested_and_saved(trained: Path) -> None:
    raw = states(trained / f'epoch_{EPOCHS}.pth')
    average, own = raw['state_dict'], raw['ema_state_dict']
    assert int(own['steps']) == EPOCHS * 4  # one for each step
    differ = [
        name
        for name, value in average.items()
        if not torch.equal(value, own[f'module.{name}'])
    ]
    assert len(differ) > len(average) / 2
    for ema, expected in ((True, average), (False, unwrapped(own))):
        model = ConvNeXtV2('atto', out_indices=(3,))
        checkpoint.load(model, trained / f'epoch_{EPOCHS}.pth', ema=ema)
        for name, value in model.state_dict().items():
            if not name.startswith('norm3'):
                assert torch.equal(value, expected[f'backbone.{name}'])


def unwrapped(own: dict) -> dict:
    """Take mmengine's second state apart: here the weights of the run."""
    return {name.replace('module.', '', 1): v for name, v in own.items()}


@pytest.mark.slow
def test_a_resumed_run_equals_the_whole_one(
    config: Path, folders: Path, trained: Path, tmp_path: Path
) -> None:
    first = trained / 'epoch_1.pth'
    train(config, folders, tmp_path, f'--resume={first}')
    last = f'epoch_{EPOCHS}.pth'
    expected, found = states(trained / last), states(tmp_path / last)
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name
    half = losses(tmp_path)
    assert half
    assert half.items() <= losses(trained).items()


@pytest.mark.slow
@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('method', ['upernet', 'mask_rcnn'])
def test_dense_models_start_from_it(
    trained: Path, method: str, ema: bool
) -> None:
    """Stages from the classifier; the norms of the outputs are new."""
    cfg = Config.fromfile(ROOT / f'configs/{method}_convnextv2_atto_demo.py')
    last = trained / f'epoch_{EPOCHS}.pth'
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(last), ema=ema
    )
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    raw = states(last)
    state = raw['state_dict'] if ema else unwrapped(raw['ema_state_dict'])
    for name, value in model.backbone.state_dict().items():
        if name.startswith('norm'):
            assert bool((value == float(name.endswith('weight'))).all())
        else:
            assert torch.equal(value, state[f'backbone.{name}'])


@pytest.mark.slow
def test_it_starts_from_a_pre_training(
    config: Path, folders: Path, trained: Path, tmp_path: Path
) -> None:
    last = trained / f'epoch_{EPOCHS}.pth'
    init = 'model.backbone.init_cfg'
    out = train(
        config,
        folders,
        tmp_path,
        f'{init}.type=Pretrained',
        f'{init}.checkpoint={last}',
        f'{init}.ema=True',
        'optim_wrapper.optimizer.lr=1e-9',
    )
    assert f'weights   of the backbone {last}' in out
    found = states(tmp_path / f'epoch_{EPOCHS}.pth')['state_dict']
    start = states(last)['state_dict']
    for name, value in found.items():
        if name.startswith('backbone.'):
            torch.testing.assert_close(value, start[name], atol=1e-6, rtol=0)
