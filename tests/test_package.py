"""The walls of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mmconvnext'
# module: modules of the package that it may import
ALLOWED = {
    '__init__': {
        'collapse',
        'convnext',
        'data',
        'fcmae',
        'layers',
        'optim',
        'pretrain_hooks',
        'resume',
    },
    'registry': set(),
    'archs': set(),
    'sources': set(),
    'weights_io': {'sources'},
    'formats': set(),
    'detection': {'archs', 'formats', 'weights_io'},
    'checkpoint': {'detection', 'formats', 'weights_io'},
    'ops': set(),
    'layers': {'ops'},
    'graphs': {'ops'},
    'convnext': {
        'archs',
        'checkpoint',
        'graphs',
        'layers',
        'ops',
        'pages',
        'registry',
    },
    'fcmae': {'checkpoint', 'convnext', 'pages', 'registry'},
    'data': {'pictures', 'registry'},
    'reconstruction': {'data', 'pictures'},
    'pretrain_hooks': {
        'data',
        'pictures',
        'reconstruction',
        'registry',
        'weights_io',
    },
    'optim': {'registry'},
    'resume': {'registry'},
    'launch': {'checkpoint', 'mmcv_ops'},
    'mmcv_ops': set(),
    'pages': set(),
    'pictures': {'scores'},
    'gallery': {'pictures'},
    'scores': set(),
    'analysis': {'layers'},
    'collapse': {'analysis', 'registry'},
    'report': {'analysis'},
}
FILES = sorted(PACKAGE.rglob('*.py'))


def module_of(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(file: Path) -> set:
    """Absolute top-level names, and '.name' for the package's own."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split('.')[0])
        elif isinstance(node, ast.ImportFrom):
            names = (
                [node.module]
                if node.module
                else [alias.name for alias in node.names]
            )
            found |= {f'.{name}' for name in names}
    return found


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_imports_go_one_way(file: Path) -> None:
    own = {name[1:] for name in imports(file) if name.startswith('.')}
    if file.parent != PACKAGE:
        own -= {path.stem for path in file.parent.glob('*.py')}
    assert own <= ALLOWED[module_of(file)]


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_hosts_and_triton_stay_outside(file: Path) -> None:
    found = imports(file)
    assert not found & {'mmdet', 'mmseg'}
    assert 'triton' not in found or file.name.startswith('triton_')


def test_import_needs_no_host() -> None:
    code = (
        'import sys; import mmconvnext; '
        'print([m for m in ("mmcv", "mmdet", "mmseg") if m in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout.strip() == '[]', done.stderr
