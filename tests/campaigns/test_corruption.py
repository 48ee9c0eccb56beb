"""A few cases of the campaign of corruption, which needs a library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('safetensors')
SCRIPT = Path(__file__).with_name('corruption.py')


@pytest.mark.slow
def test_a_few_cases() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), '--count=40'],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert run.stdout.splitlines()[-1].startswith('corruption, seed 0, 40 ')
