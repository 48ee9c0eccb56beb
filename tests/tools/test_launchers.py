"""dist_train.sh and slurm_train.sh: what they would run."""

import os
import subprocess
from pathlib import Path
from typing import Tuple

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def run(script: str, *args: str, **env: str) -> Tuple[int, str]:
    done = subprocess.run(
        ['bash', TOOLS / script, *args],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_dist_train() -> None:
    _, line = run('dist_train.sh', 'c.py', '4', '--resume', PYTHON='echo')
    assert line == (
        '-m torch.distributed.run --nnodes 1 --node_rank 0 '
        '--master_addr 127.0.0.1 --master_port 29500 --nproc_per_node 4 '
        f'{TOOLS}/train.py c.py --launcher pytorch --resume'
    )
    nodes = dict(NODES='2', NODE_RANK='1', MASTER='host', PORT='1234')
    _, line = run('dist_train.sh', 'c.py', '8', PYTHON='echo', **nodes)
    assert '--nnodes 2 --node_rank 1 --master_addr host' in line
    assert '--master_port 1234 --nproc_per_node 8' in line


def test_slurm_train(tmp_path: Path) -> None:
    stub = tmp_path / 'srun'
    stub.write_text('#!/bin/sh\necho "$@"\n')
    stub.chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    args = ('slurm_train.sh', 'part', 'job', 'c.py', '--auto-scale-lr')
    _, line = run(*args, PATH=path, GPUS='16', SRUN_ARGS='--time 10')
    assert line == (
        '-p part --job-name job --gres gpu:8 --ntasks 16 '
        '--ntasks-per-node 8 --cpus-per-task 5 --kill-on-bad-exit=1 '
        f'--time 10 python -u {TOOLS}/train.py c.py '
        '--launcher slurm --auto-scale-lr'
    )
    _, line = run(*args, PATH=path, GPUS='2')
    assert '--gres gpu:2 --ntasks 2 --ntasks-per-node 2' in line


@pytest.mark.parametrize('script', ['dist_train.sh', 'slurm_train.sh'])
def test_usage(script: str) -> None:
    code, text = run(script, 'c.py')
    assert code == 2
    assert text.startswith('usage: bash ')
