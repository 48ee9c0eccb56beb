"""Our configs by name, in a source tree and installed either way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine import hub as engine
from mmengine.config import Config

from mmconvnext import hub

ROOT = Path(__file__).parents[1]
DEMOS = {
    'mmconvnext::upernet_convnextv2_atto_demo.py': 'EncoderDecoder',
    'mmconvnext::mask_rcnn_convnextv2_atto_demo': 'MaskRCNN',
}


@pytest.mark.parametrize('name', DEMOS)
def test_models_and_configs_come_by_name(name: str) -> None:
    cfg = engine.get_config(name)
    assert Path(cfg.filename).stem == name.split('::')[1].split('.')[0]
    assert cfg.model.type == DEMOS[name]
    model = engine.get_model(name)
    assert type(model).__name__ == DEMOS[name]
    assert type(model.backbone).__name__ == 'ConvNeXtV2'


def test_a_config_is_based_on_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text(
        "_base_ = 'mmconvnext::upernet_convnextv2_tiny_own.py'\n"
        'model = dict(backbone=dict(drop_path_rate=0.3))\n',
        encoding='utf-8',
    )
    cfg = Config.fromfile(tmp_path / 'own.py')
    ours = Config.fromfile(ROOT / 'configs/upernet_convnextv2_tiny_own.py')
    assert cfg.model.backbone.pop('drop_path_rate') == 0.3
    ours.model.backbone.pop('drop_path_rate')
    # No scope but the config's own: the parts are the host's.
    assert cfg.to_dict() == ours.to_dict()


def test_unknown_names_and_weights_are_refused() -> None:
    with pytest.raises(FileNotFoundError, match='like it: .*atto_demo'):
        engine.get_config('mmconvnext::upernet_atto_demo.py')
    with pytest.raises(ValueError, match='no trained weights'):
        engine.get_model('mmconvnext::upernet_convnextv2_atto_demo', True)


def test_other_packages_are_mmengine_s() -> None:
    with pytest.raises(Exception, match='support|specify|exist'):
        engine.get_config('nobody::folder/file.py')
    with pytest.raises(ValueError, match='relative config path'):
        engine.get_config('mmdet::file.py')


def test_installing_twice_changes_nothing() -> None:
    before = (engine.get_config, engine.get_model, Config._get_cfg_path)
    hub.install()
    assert before == (
        engine.get_config,
        engine.get_model,
        Config._get_cfg_path,
    )


def test_an_mmengine_without_the_private_name(monkeypatch) -> None:
    """Then `_base_` is mmengine's business; names still work in the hub."""
    later = SimpleNamespace(fromfile=Config.fromfile)
    monkeypatch.setattr(hub, 'Config', later)
    hub.install()
    assert not hasattr(later, '_get_cfg_path')
    assert engine.get_config('mmconvnext::upernet_convnextv2_atto_demo')


CHECK = """
import mmconvnext
from mmengine.config import Config
from mmengine.hub import get_config
name = 'mmconvnext::upernet_convnextv2_tiny_own.py'
open('own.py', 'w').write(f'_base_ = {name!r}')
print(get_config(name).filename)
print(Config.fromfile('own.py').model.type)
"""


@pytest.mark.parametrize('editable', [True, False])
def test_installed_packages_have_their_configs(
    tmp_path: Path, editable: bool
) -> None:
    """A build as pip makes it: links in the tree, or a copy."""
    tree, build = tmp_path / 'tree', tmp_path / 'build'
    ignore = shutil.ignore_patterns('.git', '.venv*', 'data', 'work_dirs')
    shutil.copytree(ROOT, tree, ignore=ignore)
    shutil.rmtree(tree / 'mmconvnext/.mim', ignore_errors=True)
    done = subprocess.run(
        [sys.executable, 'setup.py', 'build_py', '--build-lib', str(build)]
        if not editable
        else [sys.executable, '-c', LINK],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    place = tree if editable else build
    if not editable:
        shutil.rmtree(tree)
    done = subprocess.run(
        [sys.executable, '-c', CHECK],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(place)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    filename, kind = done.stdout.split()[-2:]
    assert filename.startswith(str(place / 'mmconvnext/.mim/configs'))
    assert kind == 'EncoderDecoder'


# What setuptools does for `pip install -e`, without its sandbox.
LINK = """
import runpy, sys
sys.argv = ['setup.py', '--version']
setup = runpy.run_path('setup.py')
for name in setup['INDEX']:
    setup['link'](setup['HERE'] / name,
                  setup['HERE'] / 'mmconvnext' / '.mim' / name)
"""
