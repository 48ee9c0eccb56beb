"""Private names of other libraries: few, each with a reason and a way out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [*(ROOT / 'mmconvnext').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
)
# Documented in spite of the underscore: named tuples, and ``os``.
DOCUMENTED = {'_asdict', '_exit', '_fields', '_make', '_replace'}
# (file, name): why it is read, and what happens where it is missing.
OPS = 'asked for with getattr; test_ops runs without each of them'
READ = {
    (
        'mmconvnext/models/cuda_graphs.py',
        '_is_replica',
    ): 'the mark of a copy by nn.DataParallel; unmarked ones are not refused',
    **{
        (f'mmconvnext/ops/{file}.py', name): OPS
        for file, names in {
            'choice': (
                '_C',
                '_current_level',
                '_functorch',
                '_is_exporting_flag',
                '_len_torch_dispatch_stack',
                '_utils',
            ),
            'onednn': ('_is_mkldnn_bf16_supported', '_linear_pointwise'),
        }.items()
        for name in names
    },
    (
        'mmconvnext/checkpoint/pickles.py',
        '_Unpickler',
    ): "Python's own, in each of 3.10 to 3.13; the public one in C fills "
    'gigabytes for a forged index',
    (
        'mmconvnext/checkpoint/engine.py',
        '_params_init_info',
    ): 'mmengine has it while it initialises only; asked for with hasattr',
    (
        'mmconvnext/training/resume.py',
        '_iterator',
    ): 'the one way to end persistent workers; without it the hook refuses '
    'them (test_resume)',
    (
        'mmconvnext/hub.py',
        '_get_cfg_path',
    ): 'asked for with getattr; without it `_base_` takes paths, and the '
    'packages that mmengine lists',
    (
        'mmconvnext/mmcv_ops/__init__.py',
        '_ext',
    ): 'the module that this folder stands in for',
}


def _words(text: str) -> Iterator[str]:
    for word in text.split('.'):
        if word.startswith('_') and not word.startswith('__'):
            yield word


def _is_ours(base: ast.expr, relative: set) -> bool:
    """Whether an attribute is of this class or of a module of this package."""
    if isinstance(base, ast.Call):
        return isinstance(base.func, ast.Name) and base.func.id == 'super'
    return isinstance(base, ast.Name) and base.id in {'self', 'cls', *relative}


def _reads_by_name(call: ast.Call) -> bool:
    """Whether it is ``getattr(x, '_name')``, with a default or without."""
    by_name = ('getattr', 'setattr', 'hasattr', 'delattr')
    return (
        isinstance(call.func, ast.Name)
        and call.func.id in by_name
        and not _is_ours(call.args[0], set())
        and isinstance(call.args[1], ast.Constant)
    )


def _of_node(node: ast.AST, relative: set) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and not _is_ours(node.value, relative):
        yield from _words(node.attr)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield from _words(alias.name)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            yield from _words(f'{node.module}.{alias.name}')
    elif isinstance(node, ast.Call) and _reads_by_name(node):
        yield from _words(node.args[1].value)


def private_names(source: str) -> set:
    """Return the private names of other libraries that a module reads."""
    tree = ast.parse(source)
    relative = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    found = {n for node in ast.walk(tree) for n in _of_node(node, relative)}
    return found - DOCUMENTED


def _found() -> set:
    return {
        (str(file.relative_to(ROOT)), name)
        for file in FILES
        for name in private_names(file.read_text(encoding='utf-8'))
    }


def test_private_names_are_those_of_the_table() -> None:
    found = _found()
    assert not found - set(READ), 'find a public way, or a way out, and say it'
    assert not set(READ) - found, 'no longer read: take it out of the table'


@pytest.mark.parametrize(
    'source, names',
    [
        ('import torch\ntorch._C._nn.gelu_(x)', {'_C', '_nn'}),
        ('from torch import _dynamo', {'_dynamo'}),
        ('from torch._utils import a', {'_utils'}),
        ('import torch._dynamo', {'_dynamo'}),
        ("getattr(np, '_core', None)", {'_core'}),
        ("setattr(loader, '_iterator', None)", {'_iterator'}),
        ('loader._iterator = None', {'_iterator'}),
        ('from . import choice\nchoice._forced', set()),
        ('self._x, cls._y, super()._z', set()),
        ("hasattr(self, '_x')", set()),
        ('row._replace(a=1), x.__class__', set()),
    ],
)
def test_the_reader_of_names(source: str, names: set) -> None:
    assert private_names(source) == names
