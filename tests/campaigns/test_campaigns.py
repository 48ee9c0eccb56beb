"""A few cases of each campaign: they run, and print their figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CASES = {
    'adopt_zoo': ['--only=mmdet::tood', '--out={folder}/rows.jsonl'],
    'damaged_data': ['--count=5'],
    'kills': ['--count=1', '--what=conversion'],
    'soak': ['--minutes=0.5'],
    'writes': ['--count=4'],
}
# test_corruption.py runs where safetensors is installed, test_labels.py and
# test_chain.py have data of their own.
ELSEWHERE = {'campaign', 'chain', 'corruption', 'labels'}
# in the last line, where it is no seed
ENDS = {'adopt_zoo': "configs: 1, {'adopted': 1}; unread: 0"}


def test_every_campaign_is_here() -> None:
    scripts = {path.stem for path in FOLDER.glob('[!t]*.py')}
    assert scripts - ELSEWHERE == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_a_few_cases(name: str, tmp_path: Path) -> None:
    options = [option.format(folder=tmp_path) for option in CASES[name]]
    run = subprocess.run(
        [sys.executable, str(FOLDER / f'{name}.py'), *options],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert 'WRONG' not in run.stdout
    assert ENDS.get(name, 'seed 0') in run.stdout.splitlines()[-1]
