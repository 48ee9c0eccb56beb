"""The line that moves, or the lines that do not; the table at the end."""

import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, succeed

from mmconvnext.training import line, screen

CONFIG = 'configs/upernet_convnextv2_atto_demo.py'
SHORT = (
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'param_scheduler.1.end=4',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
)


def test_plain_lines_are_five_at_most(capsys) -> None:
    with line.Line(1000) as made:
        for step in range(1, 1001):
            made.step(step, f'iteration {step}')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith('iteration 200  ')
    assert lines[-1] == 'iteration 1000  0:00 left'


def test_time_left_counts_from_where_a_run_resumed(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(line.time, 'monotonic', lambda: now[0])
    made = line.Line(100, start=80)
    now[0] = 30.0
    made.pause(10.0)
    assert made.left(90) == pytest.approx(20.0)


@pytest.mark.parametrize(
    'metrics, lines, brief',
    [
        (
            {'mIoU': 61.2, 'mAcc': 70.0, 'aAcc': math.nan},
            ['mIoU  61.20', 'mAcc  70.00', 'aAcc  -'],
            'mIoU 61.20, mAcc 70.00, aAcc -',
        ),
        (
            {
                'coco/bbox_mAP': 0.41,
                'coco/bbox_mAP_s': -1.0,
                'coco/segm_mAP': 0.39,
                'F1': 0.5,
            },
            [
                '          mAP    mAP_s',
                'bbox    0.410        -',
                'segm    0.390        -',
                'F1  0.500',
            ],
            'bbox mAP 0.410, segm mAP 0.390, F1 0.500',
        ),
        ({}, [], ''),
    ],
)
def test_metrics_are_a_table(metrics: dict, lines: list, brief: str) -> None:
    assert screen.table(metrics) == lines
    assert screen.brief(metrics) == brief


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 4, '--val', 2)
    return out


def command(demo: Path, work_dir: Path, *more: str) -> list:
    return [
        'tools/train.py',
        CONFIG,
        '--data-root',
        demo / 'ade20k',
        '--work-dir',
        work_dir,
        '--cfg-options',
        *SHORT,
        *more,
    ]


@pytest.mark.slow
def test_a_file_gets_few_plain_lines(demo: Path, tmp_path: Path) -> None:
    out = succeed(*command(demo, tmp_path))
    lines = out.splitlines()
    assert len(lines) < 25, out
    assert '\x1b' not in out and '\r' not in out
    for start in ('data ', 'model ', 'weights   random', 'schedule ', 'log '):
        assert any(row.startswith(start) for row in lines), start
    (data,) = [row for row in lines if row.startswith('data ')]
    assert '4 images to train, 2 to validate; 9 classes: grass' in data
    assert re.search(r'^iteration 4/4  loss \d\.\d+  mIoU', out, re.M)
    assert re.search(r'^iteration 2: .*mIoU', out, re.M)
    assert 'OneDL' not in out
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    for part in ('Config:', 'System environment', 'mmcv operators', 'Iter('):
        assert part in text, part
    places = dict(re.findall(r'^(\w[\w ]+\w)  +(/.*)$', out, re.M))
    for name in ('checkpoint', 'the best', 'curves'):
        assert Path(places[name]).is_file(), out
    tested = succeed(
        'tools/test.py',
        CONFIG,
        places['checkpoint'],
        '--data-root',
        demo / 'ade20k',
    )
    assert re.search(r'^mIoU: [\d.]+$', tested, re.M)
    assert 'Config' not in tested and len(tested.splitlines()) < 15, tested


@pytest.mark.slow
def test_verbose_brings_the_log_back(demo: Path, tmp_path: Path) -> None:
    args = command(demo, tmp_path, 'train_cfg.val_interval=9')
    out = succeed(*args[:2], '--verbose', *args[2:])
    for part in ('Config:', 'System environment', 'Iter(train)'):
        assert part in out, part


@pytest.mark.slow
def test_a_terminal_gets_a_line_that_moves(demo: Path, tmp_path: Path) -> None:
    """Nothing of the line is left at the end, and the cursor is back."""
    parent, child = pty.openpty()
    args = [str(word) for word in command(demo, tmp_path)]
    process = subprocess.Popen(
        [sys.executable, *args],
        cwd=ROOT,
        stdout=child,
        stderr=child,
        env={**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'},
    )
    os.close(child)
    seen = b''
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait() == 0, seen.decode()[-2000:]
    text = seen.decode()
    assert re.search(r'iteration \d/4  loss', text)
    assert '\x1b[?25l' in text and '\x1b[?25h' in text
    after = text.rpartition('\x1b[2K')[2]
    assert 'left' not in after and 'checkpoint' in after
