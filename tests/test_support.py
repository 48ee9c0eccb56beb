"""What is said to be supported is the same everywhere it is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tools'))
from checkup import fixes  # noqa: E402

PYTHONS = ('3.10', '3.11', '3.12', '3.13')
TORCH, NUMPY = '2.1', '1.26'


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def row(name: str) -> str:
    """Return the second cell of a row of the README's support table."""
    table = text('README.md').partition('| supported |')[2]
    found = re.search(rf'^\| {name} \| (.*?) \|', table, re.MULTILINE)
    assert found, f'no row {name}'
    return found.group(1)


def pinned(name: str, package: str) -> str:
    found = re.search(
        rf'^{package}==(\S+)', text(f'requirements/{name}.txt'), re.MULTILINE
    )
    assert found, f'{name}.txt does not pin {package}'
    return found.group(1)


def test_setup() -> None:
    setup = text('setup.py')
    classifiers = re.findall(r'Python :: (\d\.\d+)', setup)
    assert tuple(classifiers) == PYTHONS
    assert f"python_requires='>={PYTHONS[0]}'" in setup
    assert f"'torch>={TORCH}', 'numpy>={NUMPY}'" in setup


def test_readme() -> None:
    assert row('Python') == f'{PYTHONS[0]} to {PYTHONS[-1]}'
    assert row('torch').startswith(f'{TORCH} to 2.13')
    assert row('numpy') == f'{NUMPY} and 2'
    for name, packages in {
        'runtime': (
            'onedl-mmengine',
            'onedl-mmcv',
            'onedl-mmdetection',
            'onedl-mmsegmentation',
        ),
        'openmmlab': ('mmengine', 'mmcv-lite', 'mmdet', 'mmsegmentation'),
        'oldest': ('mmengine', 'mmcv-lite', 'mmdet', 'mmsegmentation'),
    }.items():
        for package in packages:
            assert pinned(name, package) in row('hosts')


def test_doctor() -> None:
    oldest = {k: '.'.join(map(str, v)) for k, v in fixes.OLDEST.items()}
    assert oldest['python'] == PYTHONS[0]
    assert oldest['torch'] == TORCH
    assert oldest['numpy'] == NUMPY


def test_scripts() -> None:
    setup = text('tools/setup_env.sh')
    minor = PYTHONS[0].partition('.')[2]
    assert f'sys.version_info < (3, {minor})' in setup
    # Its torch is the newest of the table, that of oldest the first.
    assert 'TORCH:-torch==2.13.0' in setup
    assert 'TORCH=torch==2.1.2' in text('tools/run_tests.sh')
    assert pinned('oldest', 'numpy').startswith(NUMPY)
    assert f"target-version = 'py3{minor}'" in text('.ruff.toml')


def test_workflow() -> None:
    workflow = text('.github/workflows/tests.yml')
    named = set(re.findall(r"python: '(\d\.\d+)'", workflow))
    assert named == set(PYTHONS)
    for hosts in ('onedl', 'openmmlab', 'oldest'):
        assert f'hosts: {hosts},' in workflow
        assert hosts in text('tools/run_tests.sh')
    ruff = pinned('tests', 'ruff')
    assert text('.pre-commit-config.yaml').count(f'ruff=={ruff}') == 2
