"""Importing the package is light, and mmengine knows our configs after it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mmconvnext import after_import


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module to import; nothing of it is left."""
    (tmp_path / 'a_module.py').write_text('value = 1\n', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path])
    yield 'a_module'
    sys.modules.pop('a_module', None)


def test_acts_once_after_the_import(module: str) -> None:
    seen, finders = [], [*sys.meta_path]
    after_import(module, lambda: seen.append(sys.modules[module].value))
    assert not seen and len(sys.meta_path) == len(finders) + 1
    import a_module

    assert seen == [1] and sys.meta_path == finders
    # The loader is as if nobody had waited.
    assert 'exec_module' not in vars(a_module.__loader__)
    importlib.reload(a_module)
    assert seen == [1]


def test_asking_for_the_module_is_not_importing_it(module: str) -> None:
    seen = []
    after_import(module, lambda: seen.append(module))
    assert importlib.util.find_spec(module) and not seen
    importlib.import_module(module)
    assert seen == [module]


def test_where_there_is_no_such_module(module: str) -> None:
    after_import('nowhere_at_all', lambda: pytest.fail('acted'))
    with pytest.raises(ModuleNotFoundError, match='nowhere_at_all'):
        importlib.import_module('nowhere_at_all')
    importlib.import_module(module)


# Parts of the package may be what imports mmengine first, hub among them.
PARTS = ('cli', 'configs', 'hub', 'models.convnext', 'registry')
ORDERS = [
    'import mmconvnext',
    'import mmengine, mmconvnext',
    'from mmconvnext import ConvNeXt',
    *(f'import mmconvnext.{part}' for part in PARTS),
]


@pytest.mark.parametrize('order', ORDERS)
def test_configs_have_names_in_any_order(order: str, tmp_path: Path) -> None:
    own = tmp_path / 'own.py'
    name = 'mmconvnext::upernet_convnextv2_atto_demo.py'
    own.write_text(f'_base_ = {name!r}\n', encoding='utf-8')
    code = (
        f'{order}\n'
        'from mmengine.config import Config\n'
        'from mmengine.hub import get_config\n'
        f'print(Config.fromfile({str(own)!r}).model.type)\n'
        f'print(get_config({name!r}).model.type)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout.split() == ['EncoderDecoder'] * 2, done.stderr
