"""The benchmark ``curves``: two trainings that differ in the path alone."""

from argparse import Namespace
from pathlib import Path
from typing import Callable

import cv2
import masked
import pytest
import tiny
import torch
from bench import curves
from bench.subjects import VERSIONS
from runs import succeed
from torch import Tensor

from mmconvnext import ConvNeXtBlock, archs
from mmconvnext.ops import fused

STEPS = 6
RIGHT = fused.forward


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 8, '--val', 1)
    return out / 'ade20k'


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four narrow blocks, drop path up to 0.5, small crops.

    The initial weights and the learning rate are not the recipe's: with those
    a branch is small compared with its residual and the classifier ignores
    the features, so that errors would round away.
    """
    row = archs.Arch((1, 1, 1, 1), tuple(tiny.DIMS))
    monkeypatch.setitem(archs.ARCHS, 'atto', row)
    for backbone in VERSIONS.values():
        monkeypatch.setattr(backbone, 'reset_parameters', masked.randomise)
    configure = curves.configure

    def small(*args):
        cfg = configure(*args)
        cfg.model.backbone.drop_path_rate = 0.5
        last = dict(type='Normal', std=0.3, override=dict(name='conv_seg'))
        for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
            head.init_cfg = last
        cfg.param_scheduler = []
        pipeline = cfg.train_dataloader.dataset.pipeline
        pipeline[2].scale, pipeline[3].crop_size = (128, 96), (96, 64)
        cfg.model.data_preprocessor.size = (96, 64)
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        return cfg

    monkeypatch.setattr(curves, 'configure', small)


def arguments(demo: Path, **changes: object) -> Namespace:
    given = dict(version=2, steps=STEPS, data_root=str(demo), picture=None)
    given['precision'] = 'float32'
    return Namespace(**{**given, **changes})


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list:
    """Every block's drop path factors, in the order of the calls."""
    factors, sample = [], ConvNeXtBlock._sample_keep

    def record(block: ConvNeXtBlock, x: Tensor) -> Tensor:
        keep = sample(block, x)
        factors.append([] if keep is None else keep.flatten().tolist())
        return keep

    monkeypatch.setattr(ConvNeXtBlock, '_sample_keep', record)
    return factors


@pytest.mark.parametrize('version', [1, 2])
def test_both_paths_learn_alike(
    demo: Path, tmp_path: Path, version: int, dropped: list
) -> None:
    picture = tmp_path / 'curves.png'
    args = arguments(demo, version=version, picture=picture)
    plain, ours, nudged = curves.curve_rows(args)
    assert [r['run'] for r in (plain, ours, nudged)] == list(curves.RUNS)
    assert float(plain['largest_difference']) == 0
    # Another path ran, and the difference is negligible, or no larger than
    # what the last bit of the weights makes: 7e-4 with torch 2.1.
    noise = float(nudged['largest_difference'])
    limit = max(1e-4, 2 * noise)
    assert 0 < noise < 1e-2
    assert 0 < float(ours['largest_difference']) < limit
    for key in ('first_loss', 'last_loss', 'mean_of_last'):
        assert ours[key] == pytest.approx(plain[key], rel=limit)
    assert plain['last_loss'] != plain['first_loss']
    # The same branches in all, and some of them dropped.
    assert len(dropped) == 3 * STEPS * 4
    assert dropped[: STEPS * 4] * 3 == dropped
    assert any(0.0 in factors for factors in dropped)
    assert len(set(cv2.imread(str(picture)).flatten())) > 10


def test_float64_is_closer(demo: Path) -> None:
    rows = curves.curve_rows(arguments(demo, precision='float64'))
    _, ours, nudged = rows
    assert 0 < float(ours['largest_difference']) < 1e-11
    assert 0 < float(nudged['largest_difference']) < 1e-11


def replace(monkeypatch: pytest.MonkeyPatch, forward: Callable) -> None:
    """Let the fused path compute this."""
    monkeypatch.setattr(fused, 'forward', forward)


@pytest.mark.parametrize('version', [1, 2])
def test_a_wrong_path_shows(
    demo: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    def wrong(x: Tensor, *args: object) -> tuple:
        # No multiple of the right map: the next norm would hide it.
        y, saved = RIGHT(x, *args)
        return y + 0.05 * x, saved

    replace(monkeypatch, wrong)
    _, ours, _ = curves.curve_rows(arguments(demo, version=version, steps=2))
    assert float(ours['largest_difference']) > 1e-4


def test_another_random_number_is_refused(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawing(*args: object) -> tuple:
        torch.rand(())
        return RIGHT(*args)

    replace(monkeypatch, drawing)
    rows = curves.curve_rows(arguments(demo, steps=1))
    next(rows)
    with pytest.raises(ValueError, match='in more than the path: random of'):
        next(rows)


@pytest.mark.parametrize('what', curves.Seen._fields)
def test_runs_must_see_the_same(what: str) -> None:
    same = [curves.Seen(batch, 2) for batch in range(3)]
    runs = [curves.Recorder(), curves.Recorder()]
    for run in runs:
        run.seen = list(same)
    curves.check_alike('fused', *runs)
    runs[0].seen[1] = same[1]._replace(**{what: -1})
    with pytest.raises(ValueError, match=f': {what} of step 1$'):
        curves.check_alike('fused', *runs)


def test_what_cannot_run_is_refused(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='steps must be 1 or more, got 0'):
        next(curves.curve_rows(arguments(demo, steps=0)))
    with pytest.raises(ValueError, match="float64.*got 'float16'"):
        next(curves.curve_rows(arguments(demo, precision='float16')))
    missing = arguments(tmp_path / 'gone')
    with pytest.raises(FileNotFoundError, match='data set not found'):
        next(curves.curve_rows(missing))
