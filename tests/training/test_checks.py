"""What a resumed run keeps of its checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmconvnext.training.checks import check_resume, read_literals

CFG = dict(
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
    train_dataloader=dict(batch_size=2, num_workers=0),
    randomness=dict(seed=1),
    optim_wrapper=dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999)),
        accumulative_counts=1,
    ),
    param_scheduler=[
        dict(type='LinearLR', begin=0, end=2, by_epoch=False),
        dict(type='PolyLR', begin=2, end=8, by_epoch=False),
    ],
)


def config(**changes) -> Config:
    cfg = Config(copy.deepcopy(CFG))
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return cfg


def stored(cfg: Config, iteration: int = 4, epoch: int = 0) -> dict:
    """What mmengine writes, as far as it matters."""
    schedulers = [
        dict(param_name='lr', **{k: row[k] for k in ('end', 'by_epoch')})
        for row in cfg.param_scheduler
    ]
    momentum = dict(param_name='momentum', end=10**9, by_epoch=False)
    return dict(
        meta=dict(iter=iteration, epoch=epoch, cfg=cfg.pretty_text),
        optimizer={},
        message_hub={},
        param_schedulers=[*schedulers, momentum],
    )


def check(cfg: Config, raw: dict, iters: int = 8, epoch: int = 4) -> list:
    return check_resume(cfg, raw, iters, epoch)


def test_the_same_config_resumes_in_silence() -> None:
    assert check(config(), stored(config())) == []
    # A longer log interval or another work dir is nobody's business.
    cfg = config(work_dir='elsewhere', train_dataloader__num_workers=4)
    assert check(cfg, stored(config())) == []


@pytest.mark.parametrize(
    ('change', 'text', 'winner'),
    [
        (
            dict(optim_wrapper__optimizer__lr=1e-3),
            'optimiser: optim_wrapper.optimizer.lr is 0.0001 in the '
            'checkpoint, 0.001 in the config',
            'checkpoint',
        ),
        (
            dict(train_dataloader__batch_size=4),
            'batch size: train_dataloader.batch_size is 2 in the checkpoint,'
            ' 4 in the config',
            'config',
        ),
        (dict(randomness__seed=5), 'seed: randomness.seed is 1', 'checkpoint'),
        (
            dict(optim_wrapper__accumulative_counts=2),
            'optimiser step: optim_wrapper.accumulative_counts is 1',
            'config',
        ),
        (
            dict(param_scheduler__1__end=6),
            'schedule: param_scheduler.1.end is 8 in the checkpoint, 6',
            'checkpoint',
        ),
        (
            dict(optim_wrapper__paramwise_cfg=dict(decay_rate=0.9)),
            'paramwise_cfg.decay_rate is not set in the checkpoint, 0.9',
            'checkpoint',
        ),
        (
            dict(train_cfg__max_iters=6),
            'length of the run: train_cfg.max_iters is 8',
            'config',
        ),
    ],
)
def test_differences_are_said_with_what_wins(
    change: dict, text: str, winner: str
) -> None:
    (line,) = check(config(**change), stored(config()))
    assert text in line
    assert line.endswith(f"; the {winner}'s is used")


@pytest.mark.parametrize(
    ('by_epoch', 'end', 'iters', 'epoch', 'fails'),
    [
        (False, 8, 8, 4, False),
        (False, 8, 6, 4, False),  # a run may end before its schedule
        (False, 8, 9, 4, True),
        (True, 2, 8, 4, False),
        (True, 2, 16, 8, False),  # half the batch: epochs are longer
        (True, 2, 12, 4, True),
        (False, 8, 16, 8, True),  # the same with a schedule in iterations
    ],
)
def test_a_schedule_that_ends_before_the_run_is_an_error(
    by_epoch: bool, end: int, iters: int, epoch: int, fails: bool
) -> None:
    cfg = config()
    cfg.param_scheduler[1].update(end=end, by_epoch=by_epoch)
    raw = stored(cfg)
    # What the config says by now does not help: the checkpoint's counts.
    cfg.param_scheduler[1].end = 100
    if not fails:
        check(cfg, raw, iters, epoch)
        return
    with pytest.raises(ValueError, match='ends after 8 iterations, the run'):
        check(cfg, raw, iters, epoch)


@pytest.mark.parametrize(
    'change',
    [
        dict(optim_wrapper__optimizer__type='SGD'),
        dict(param_scheduler__1__type='CosineAnnealingLR'),
    ],
)
def test_another_type_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r'types it had, but .*\.type is'):
        check(config(**change), stored(config()))


def test_a_class_and_its_name_are_the_same_type() -> None:
    from torch.optim import AdamW

    cfg = config()
    cfg.optim_wrapper.optimizer.type = AdamW
    assert check(cfg, stored(config())) == []
    # mmengine stores a class by its dotted name.
    cfg.optim_wrapper.optimizer.type = 'torch.optim.adamw.AdamW'
    assert check(config(), stored(cfg)) == []


def test_files_without_a_run_are_refused() -> None:
    with pytest.raises(ValueError, match='no optimizer, message_hub, meta.ep'):
        check(config(), dict(state_dict={}))


def test_a_stored_config_is_read_and_never_run(tmp_path: Path) -> None:
    gone = tmp_path / 'written'
    text = (
        f"evil = open({str(gone)!r}, 'w')\n"
        f'worse = dict(a=1, b=__import__("os").system("touch {gone}"))\n'
        'fine = dict(a=[1, -2.5, (3, None)], b={"c": True})\n'
    )
    assert read_literals(text) == {
        'fine': dict(a=[1, -2.5, [3, None]], b=dict(c=True))
    }
    assert not gone.exists()
    assert read_literals('no python (') == {}


EPOCHS = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2)
BY_EPOCH = dict(_delete_=True, by_epoch=True, max_epochs=2)


@pytest.mark.parametrize('train_cfg', [EPOCHS, BY_EPOCH])
def test_a_run_keeps_its_unit(train_cfg: dict) -> None:
    epochs = config()
    epochs.train_cfg = {k: v for k, v in train_cfg.items() if k[0] != '_'}
    with pytest.raises(ValueError, match='counts iters, the config counts ep'):
        check(epochs, stored(config()))
    with pytest.raises(ValueError, match='counts epochs, the config counts i'):
        check(config(), stored(epochs, 4, 1))
    assert check(epochs, stored(epochs, 4, 1)) == []


def test_a_run_that_is_past_its_end() -> None:
    raw = stored(config(), iteration=8)
    assert check(config(), raw) == []
    with pytest.raises(ValueError, match='done 8 iters, and .* after 6'):
        check(config(train_cfg__max_iters=6), raw, 6)
    epochs = config()
    epochs.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    # Larger batches make epochs of fewer iterations.
    epochs.param_scheduler = []
    assert check(epochs, stored(epochs, iteration=99, epoch=2), 8) == []
    with pytest.raises(ValueError, match='done 3 epochs, and .* after 2'):
        check(epochs, stored(epochs, iteration=12, epoch=3), 8)
