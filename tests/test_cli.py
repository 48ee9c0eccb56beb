import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmconvnext import cli
from mmconvnext.data import DataError

DEMO = str(
    Path(__file__).parents[1] / 'configs/upernet_convnextv2_atto_demo.py'
)


def arguments(**kwargs) -> argparse.Namespace:
    defaults = dict(
        config=DEMO,
        data_root=None,
        cfg_options=[],
        work_dir=None,
        launcher='none',
    )
    return argparse.Namespace(**{**defaults, **kwargs})


def test_work_dir_is_named_after_the_config() -> None:
    cfg = cli.load_config(arguments())
    assert cfg.work_dir == 'work_dirs/upernet_convnextv2_atto_demo'
    assert cli.load_config(arguments(work_dir='x')).work_dir == 'x'


def test_data_root_moves_all_paths() -> None:
    args = arguments(
        config=DEMO.replace('upernet', 'mask_rcnn'), data_root='/elsewhere/'
    )
    cfg = cli.load_config(args)
    text = cfg.pretty_text
    assert 'data/demo' not in text.replace(DEMO, '').split('data_help')[0]
    for loader in cli.LOADERS:
        for path in cli.data_paths(cfg[loader].dataset):
            assert str(path).startswith('/elsewhere/')
    assert cfg.val_evaluator.ann_file == (
        '/elsewhere/annotations/instances_val2017.json'
    )


def test_settings_are_read_as_mmengine_reads_them() -> None:
    pairs = ['a.b=1', 'c="[x,2]"', 'd=e=f', 'g="(1,(2,3))"', 'h=None']
    found = cli.settings(pairs)
    assert found == {
        'a.b': 1,
        'c': ['x', 2],
        'd': 'e=f',
        'g': (1, (2, 3)),
        'h': None,
    }
    assert cli.settings([]) == {}
    cfg = cli.load_config(arguments(cfg_options=['train_cfg.max_iters=7']))
    assert cfg.train_cfg.max_iters == 7


def test_data_root_needs_one_in_the_config() -> None:
    cfg = Config(dict(model=dict()))
    with pytest.raises(ValueError, match='has no data_root'):
        cli.set_data_root(cfg, 'x')


def test_missing_config_is_named() -> None:
    with pytest.raises(FileNotFoundError, match='nowhere.py'):
        cli.load_config(arguments(config='nowhere.py'))


def test_missing_data_explains_itself(tmp_path) -> None:
    cfg = cli.load_config(arguments(data_root=str(tmp_path)))
    (tmp_path / 'images/training').mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as info:
        cli.check_data(cfg, ['train_dataloader'])
    message = str(info.value)
    assert f'looked in {tmp_path}' in message
    assert f'{tmp_path}/images/training  found' in message
    assert f'{tmp_path}/annotations/training  MISSING' in message
    assert 'make_demo_data.py' in message
    assert '--data-root' in message
    (tmp_path / 'annotations/training').mkdir(parents=True)
    # All is there by name; then content counts.
    with pytest.raises(DataError, match='found no image'):
        cli.check_data(cfg, ['train_dataloader'])


def test_data_paths_look_through_wrappers() -> None:
    leaf = dict(type='X', data_root='a', ann_file='b.json')
    nested = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[leaf, leaf]),
    )
    assert list(cli.data_paths(nested)) == [Path('a/b.json')] * 2
    plain = dict(data_root='a', data_prefix='images')
    assert list(cli.data_paths(plain)) == [Path('a/images')]


def test_amp_without_gpu_raises() -> None:
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper')))
    with pytest.raises(ValueError, match='--amp off'):
        cli.set_amp(cfg, None)
    cli.set_amp(cfg, 'off')
    assert cfg.optim_wrapper.type == 'OptimWrapper'


@pytest.mark.parametrize(
    ('amp', 'scale'),
    [('bfloat16', dict(enabled=False)), ('float16', 'dynamic')],
)
def test_amp_dtypes(monkeypatch, amp: str, scale: object) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    cli.set_amp(cfg, amp)
    assert cfg.optim_wrapper.to_dict() == dict(
        type='AmpOptimWrapper', dtype=amp, loss_scale=scale
    )


def test_types_may_be_classes_or_have_a_scope(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for kind in (AmpOptimWrapper, 'mmengine.AmpOptimWrapper'):
        cfg = Config(dict(optim_wrapper=dict(type=kind)))
        with pytest.raises(ValueError, match='--amp off'):
            cli.set_amp(cfg, None)
        cli.set_amp(cfg, 'off')
        cli.set_amp(cfg, None)


def test_our_configs_are_read_by_name() -> None:
    name = 'mmconvnext::upernet_convnextv2_atto_demo.py'
    cfg = cli.load_config(arguments(config=name, work_dir=None))
    assert cfg.model.type == 'EncoderDecoder'
    assert cfg.work_dir == 'work_dirs/upernet_convnextv2_atto_demo'


@pytest.mark.parametrize(
    ('counts', 'enable', 'base'),
    [(1, True, 16), (4, True, 4.0), (32, True, 0.5), (4, False, 16)],
)
def test_scaling_the_rate_counts_accumulation(
    counts: int, enable: bool, base: float
) -> None:
    """mmengine's ratio is batch x processes / base."""
    cfg = Config(dict(optim_wrapper=dict(accumulative_counts=counts)))
    settings = dict(enable=enable, base_batch_size=16)
    runner = SimpleNamespace(auto_scale_lr=settings)
    cli.scale_with_accumulation(runner, cfg)
    assert runner.auto_scale_lr == dict(enable=enable, base_batch_size=base)
    runner.auto_scale_lr = None
    cli.scale_with_accumulation(runner, cfg)


def test_batch_size_counts_accumulation_and_processes() -> None:
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(accumulative_counts=4),
            auto_scale_lr=dict(base_batch_size=16),
        )
    )
    assert cli.batch_size(cfg, world_size=3) == (24, 16)


def test_clear_errors_have_no_traceback() -> None:
    with pytest.raises(SystemExit, match='error: wh'), cli.clear_errors():
        raise ValueError('what')
