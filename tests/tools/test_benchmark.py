"""tools/benchmark.py: what it counts, which input it refuses, all modes.

Runs in this process and at tiny width: ``atto`` has a smaller row here.
"""

import copy
import csv
import importlib.util
import json
import subprocess
import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Dict, List

import pytest
import tiny
import torch
from bench import backbones, exported, fcmae, kernels, steps, subjects, timing
from exported import need_extras
from imports import import_tool
from runs import ROOT
from torch import Tensor, nn

from mmconvnext import archs, mmcv_ops, ops

TOOL = import_tool('benchmark')
MICRO = dict(depths=[1, 1, 1, 1], dims=tiny.DIMS)
PLAIN = ['ours', 'ours-reference', 'paper']
both = pytest.mark.parametrize('version', [1, 2])


def arguments(**changes: object) -> Namespace:
    """What the command line gives where a mode is called without it."""
    given = dict(
        version=2,
        arch=MICRO,
        batch=1,
        size=(32, 64),
        device='cpu',
        passes=['inference', 'training'],
        precision='float32',
        repeats=1,
        subjects=PLAIN,
    )
    return Namespace(**{**given, **changes})


# Timing.


def test_compare_gives_ratios_of_rounds() -> None:
    times = dict(ours=[1.0, 2.0, 4.0], theirs=[2.0, 2.0, 10.0])
    ours, theirs = timing.compare(times, 'ours')
    assert ours == dict(subject='ours', ms=2, ratio=1, lowest=1, highest=1)
    # The ratio of medians is 1; of the rounds, 2.
    assert theirs == dict(
        subject='theirs', ms=2, ratio=2, lowest=1, highest=2.5
    )


class Clock:
    """Replaces the module ``time``; time passes when a run says so."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, name: str, seconds: float) -> None:
        first = name not in self.calls
        self.calls.append(name)
        self.now += 100 if first else seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, 'time', clock)
    return clock


def test_rounds_run_all_once_and_forget_the_warm_up(clock: Clock) -> None:
    runs = {
        name: lambda name=name, i=i: clock.run(name, i)
        for i, name in enumerate('abc', 1)
    }
    times = timing.rounds(runs, 4)
    assert times == dict(a=[1e3] * 4, b=[2e3] * 4, c=[3e3] * 4)
    turns = [clock.calls[i : i + 3] for i in range(0, 15, 3)]
    assert [sorted(turn) for turn in turns] == [list('abc')] * 5
    assert len(clock.calls) == 15
    assert len({tuple(turn) for turn in turns}) > 1  # no fixed order


def test_pair_gives_ours_over_reference(clock: Clock) -> None:
    row = timing.pair(
        'op', lambda: clock.run('a', 4), lambda: clock.run('b', 1), 3
    )
    assert row == dict(
        name='op',
        reference_ms=4e3,
        ours_ms=1e3,
        ratio=0.25,
        lowest=0.25,
        highest=0.25,
    )
    assert clock.calls == list('abababab')


# The file of rows.


def read(path: Path) -> List[Dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_csv_holds_all_rows_and_what_they_ran_on(tmp_path: Path) -> None:
    # The modes' rows need not have the same columns.
    rows = [dict(name='a, b', ms=1.5), dict(name='c', MiB=7)]
    timing.write_csv(tmp_path / 'rows.csv', rows, dict(torch='2'))
    assert read(tmp_path / 'rows.csv') == [
        dict(name='a, b', ms='1.5', MiB='', torch='2'),
        dict(name='c', ms='', MiB='7', torch='2'),
    ]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError('no text')


def test_csv_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / 'rows.csv'
    path.write_text('before')
    with pytest.raises(RuntimeError, match='no text'):
        timing.write_csv(path, [dict(a=1), dict(a=Unprintable())], {})
    assert path.read_text() == 'before'


# Subjects.


def test_what_does_not_import_is_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(source: nn.Module) -> nn.Module:
        raise ImportError('No module named timm')

    monkeypatch.setitem(subjects.BUILDERS, 'timm', fail)
    source = subjects.ours(2, MICRO)
    models, missing = subjects.build(['timm', 'paper'], source)
    assert list(models) == ['paper']
    assert missing == dict(timm='No module named timm')
    backbones.subjects_of(arguments(subjects=['ours', 'timm']))
    printed = capsys.readouterr().out
    assert 'left out: timm: No module named timm' in printed


def test_an_unknown_subject_is_refused() -> None:
    with pytest.raises(ValueError, match="one of ours, .*, got 'their'"):
        subjects.build(['ours', 'their'], subjects.ours(2, MICRO))


def test_channels_last_subjects_get_such_weights_and_images() -> None:
    last = torch.channels_last
    models, _ = subjects.build(['paper', 'paper-cl'], subjects.ours(2, MICRO))
    for name, model in models.items():
        weight = model.downsample_layers[1][1].weight
        x = backbones.images(arguments(), name, (1, 3, 32, 64))
        for tensor in (weight, x):
            assert tensor.is_contiguous(memory_format=last) == (
                name == 'paper-cl'
            )


@both
def test_the_papers_block_is_ours(version: int) -> None:
    """Maps and the gradient of the images, to float64's rounding."""
    source = subjects.ours(version, MICRO).double()
    paper = subjects.build_paper(source).double()
    x = backbones.images(arguments(), '', backbones.GATE_SIZE).double()
    found = [backbones.outcome(model, x) for model in (paper, source)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


# Memory.


OWN_PROCESS = """
import json, torch
from bench.timing import peak_mib
twice = lambda: [len(torch.ones(32 << 18)) for _ in range(2)]
kept = []
runs = [twice, lambda: kept.append(torch.ones(32 << 18)), twice]
print(json.dumps([peak_mib(run) for run in runs]))
"""


@pytest.mark.skipif(not timing.KNOWS_PEAK, reason='the peak needs Linux')
def test_peak_memory_is_what_was_there_at_once() -> None:
    """Runs in a process of its own: the heap of this one is fragmented by
    earlier tests, and freed memory would be used again.
    """
    command = [sys.executable, '-c', OWN_PROCESS]
    found = subprocess.check_output(command, cwd=ROOT / 'tools')
    for peak in json.loads(found):
        assert peak == pytest.approx(34, abs=4)


# The check: subjects that compute something else are not measured.


def another_weight(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.stages[3][0].pwconv2.weight[5] *= 1.01
    return model


class AnotherGradient(nn.Module):
    """The maps of a model, and twice the gradient of the first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> List[Tensor]:
        maps = list(self.model(x))
        maps[0].register_hook(lambda grad: 2 * grad)
        return maps


def test_graphs_are_asked_for() -> None:
    source = subjects.ours(2, MICRO)
    models, _ = subjects.build(['ours-graphs'], source)
    with torch.no_grad(), pytest.raises(RuntimeError, match='cuda_graphs'):
        models['ours-graphs'](torch.randn(1, 3, 32, 64))
    assert not source.cuda_graphs


def test_what_is_compiled_is_checked_as_well() -> None:
    model = subjects.ours(2, MICRO)
    other = copy.deepcopy(model)
    x = torch.randn(1, 3, 32, 64)
    models = {'ours': model, 'paper+compile': other}
    xs = dict.fromkeys(models, x)
    backbones.check_compiled(models, xs, 'float32')
    with torch.no_grad():
        other.stages[0][0].pwconv1.bias += 0.01
    with pytest.raises(ValueError, match=r'^paper\+compile computes some'):
        backbones.check_compiled(models, xs, 'float32')


@both
@pytest.mark.parametrize(
    ('damage', 'output'), [(another_weight, 3), (AnotherGradient, 4)]
)
def test_gate_names_who_computes_something_else(
    version: int, damage, output: int
) -> None:
    source = subjects.ours(version, MICRO)
    models, _ = subjects.build(PLAIN, source)
    backbones.check(models, source, arguments())
    models['paper'] = damage(models['paper'])
    message = f'^paper computes something else: .* of output {output}, '
    with pytest.raises(ValueError, match=message):
        backbones.check(models, source, arguments())


def test_fcmae_compares_the_gradients_of_both_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = arguments(size=(64, 64), batch=2)
    fcmae.Case(args, MICRO)
    # Of the dense block only.
    functions = types.SimpleNamespace(gelu=torch.relu)
    monkeypatch.setattr(fcmae, 'F', functions)
    with pytest.raises(ValueError, match='gradients differ by'):
        fcmae.Case(args, MICRO)


# What is counted.


def test_bytes_kept_counts_a_storage_once_and_no_parameter() -> None:
    model, x = nn.Linear(4, 8), torch.randn(5, 4, requires_grad=True)

    def run() -> Tensor:
        y = model(x).exp()  # keeps x and the weight; its result
        return (y * y.view(5, 8)).sin()  # the same once more; its input

    assert backbones.bytes_kept(model, x, run) == 2 * 5 * 8 * 4


def test_saved_bytes_are_fewer_in_bfloat16() -> None:
    model = subjects.ours(2, MICRO)
    # Casts of weights are kept too; maps must outweigh them.
    x = backbones.images(arguments(), 'ours', (1, 3, 160, 160))
    full, half = (
        backbones.saved_bytes(model, x, arguments(precision=precision))
        for precision in backbones.PRECISIONS
    )
    assert 0 < half < full


def test_floor_is_the_time_of_the_flops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        backbones, 'rounds', lambda runs, repeats: {'product': [3.0, 2.0]}
    )
    model = nn.Linear(16, 32)
    once, thrice = (
        backbones.floor_ms(model, torch.randn(rows, 16), arguments())
        for rows in (5, 15)
    )
    rate = 2 * 384 * 64 * 64 * 1536 / 2.0
    assert once == pytest.approx(2 * 5 * 16 * 32 / rate)
    assert thrice == pytest.approx(3 * once)


# The command line.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``--arch atto`` be of four blocks, and its hosts' heads narrow."""
    read_config = steps.cli.read_config

    def narrow(path: Path):
        cfg = tiny.shrink(read_config(path))
        cfg.model.backbone.init_cfg = None
        return cfg

    row = archs.Arch((1, 1, 1, 1), tuple(tiny.DIMS))
    monkeypatch.setitem(archs.ARCHS, 'atto', row)
    cli = types.SimpleNamespace(**vars(steps.cli))
    cli.read_config = narrow
    for module in (steps, exported):
        monkeypatch.setattr(module, 'cli', cli)


def call(monkeypatch: pytest.MonkeyPatch, args: List[object]) -> None:
    always = ['--threads', 1, '--repeats', 1, '--arch', 'atto']
    argv = ['benchmark.py', *map(str, [*args, *always])]
    monkeypatch.setattr(sys, 'argv', argv)
    TOOL.main()


def paths_here() -> int:
    return sum(ops.absent(path) is None for path in ops.PATHS[1:])


SMALL = ['--size', 32, 64]
FAST = ['--subjects', *PLAIN]
ONE_FILE = ['--subjects', 'onnxruntime-int8']
HALF = ['--precision', 'bfloat16', '--passes', 'training']
# arguments, rows, a column of numbers above zero
CALLS = {
    'backbone V1': (['backbone', '--version', 1, *SMALL, *FAST], 6, 'ms'),
    'backbone V2': (['backbone', '--version', 2, *SMALL, *FAST], 6, 'ms'),
    'bfloat16 V1': (['backbone', '--version', 1, *SMALL, *FAST, *HALF], 3, ''),
    'bfloat16 V2': (['backbone', '--version', 2, *SMALL, *FAST, *HALF], 3, ''),
    'ops V1': (['ops', '--version', 1, *SMALL], 8 * paths_here(), ''),
    'ops V2': (['ops', '--version', 2, *SMALL, *HALF], 8 * paths_here(), ''),
    'fcmae': (['fcmae', '--size', 64, 64, '--batch', 2], 6, ''),
    'segmentor': (['segmentor', *SMALL, *FAST, '--batch', 2], 3, 'ms'),
    'mask_rcnn': (['mask_rcnn', '--size', 64, 64, *FAST], 3, 'ms'),
    # Three models in eager mode and as a file, and timm's where it is.
    'exported': (
        ['exported', '--size', 96, 128, *ONE_FILE],
        6 + 2 * (importlib.util.find_spec('timm') is not None),
        'ratio',
    ),
}


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize('name', CALLS)
def test_modes_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    if name == 'exported':
        need_extras()
    args, count, column = CALLS[name]
    call(monkeypatch, [*args, '--out', tmp_path / 'rows.csv'])
    rows = read(tmp_path / 'rows.csv')
    assert len(rows) == count
    assert all(row['torch'] == torch.__version__ for row in rows)
    assert all(float(row[column]) > 0 for row in rows if column)


COMPILED = mmcv_ops.status()['source'] == 'compiled'
ERRORS = {
    'subject': (['backbone', '--subjects', 'their'], 'subject must be one of'),
    'ours': (['backbone', '--subjects', 'paper'], "must contain 'ours'"),
    'precision': (['backbone', '--precision', 'int8'], "got 'int8'"),
    'passes': (['backbone', '--passes', 'sideways'], "got 'sideways'"),
    'batch': (['segmentor', *FAST], 'batch must be 2 or more, got 1'),
    'config': (['mask_rcnn', '--version', 1, *FAST], 'config file not found'),
    'no GPU': (['depthwise'], 'kernels of a GPU; there is none'),
    'steps': (['curves', '--steps', 0], 'steps must be 1 or more, got 0'),
    'data': (['curves', '--data-root', 'gone'], 'data set not found'),
    'no mmcv': (['operators'], 'compiled mmcv, which is not installed'),
}
SKIPPED = {'no GPU': torch.cuda.is_available(), 'no mmcv': COMPILED}


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize('name', ERRORS)
def test_errors_are_no_tracebacks(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if SKIPPED.get(name):
        pytest.skip('this machine has what the message misses')
    args, message = ERRORS[name]
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, args)
    shown = str(stopped.value)
    assert shown.startswith('error: ')
    assert message in shown


def test_an_unknown_mode_lists_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, ['everything'])
    printed = capsys.readouterr().err
    assert all(mode in printed for mode in TOOL.MODES)


def test_depthwise_shapes_are_those_of_tiny() -> None:
    assert kernels.DEPTHWISE_SHAPES[0] == (128, 128, 96)
    assert kernels.DEPTHWISE_SHAPES[-1] == (25, 42, 768)
