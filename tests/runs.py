"""Run the tools as a user does, and read what a training run logged."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tool(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def succeed(*args: str, **kwargs) -> str:
    done = tool(*args, **kwargs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def losses(work_dir: Path) -> dict:
    """Loss by iteration; a resumed run's lines replace the first run's."""
    found = {}
    for log in sorted(work_dir.glob('*/*.log')):
        lines = re.findall(
            r'(?:Iter|Epoch)\(train\) +([][\d /]+) .*?loss: ([\d.]+)',
            log.read_text(),
        )
        found.update((step, float(loss)) for step, loss in lines)
    return found


def rank_losses(work_dir: Path) -> list:
    """Average the losses of each iteration that ``gloo.py`` wrote."""
    files = sorted(work_dir.glob('losses_*.jsonl'))
    rows = [
        [
            json.loads(line)
            for line in file.read_text(encoding='utf-8').splitlines()
        ]
        for file in files
    ]
    return [
        {key: sum(row[key] for row in same) / len(same) for key in same[0]}
        for same in zip(*rows)
    ]


def kill_after(command: list, work_dir: Path) -> None:
    """Kill a run with all its workers once its first checkpoint is there."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        start_new_session=True,
    )
    deadline = time.time() + 240
    while not (work_dir / 'last_checkpoint').exists():
        assert time.time() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
