"""A project of each format takes a step, and the tools take its config."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from converters import FORMATS, draw
from labelled import write
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from runs import ROOT, succeed, tool

from mmconvnext.data.project import Order, make
from mmconvnext.data.settings import Machine

CPU = Machine('', 8 << 30, False, False, 2)


@pytest.mark.parametrize('name', FORMATS)
def test_a_step_learns(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(tmp_path / 'folder', draw(4))
    order = Order(
        tmp_path / 'folder',
        tmp_path / 'mine.py',
        ROOT / 'configs/_base_',
        arch='atto',
    )
    cfg = Config.fromfile(make(order, CPU).config)
    init_default_scope(cfg.default_scope)
    data = DATASETS.build(cfg.train_dataloader.dataset)
    model = MODELS.build(cfg.model).train()
    batch = pseudo_collate([data[0], data[1]])
    batch = model.data_preprocessor(batch, training=True)
    losses = model(**batch, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    gradients = [p.grad for p in model.backbone.parameters()]
    used = [g for g in gradients if g is not None]
    assert used and all(torch.isfinite(g).all() for g in used)
    assert sum(float(g.abs().sum()) for g in used) > 0


@pytest.mark.slow
def test_from_the_command_line_to_scores(tmp_path: Path) -> None:
    """Make, browse, train, test and predict with nothing but commands."""
    FORMATS['palette'].write(tmp_path / 'folder', draw(6))
    config = tmp_path / 'mine.py'
    said = succeed(
        'tools/new_project.py',
        tmp_path / 'folder',
        '--out',
        config,
        '--arch=atto',
        '--weights=none',
        '--html',
    )
    for words in ('format: label maps', 'next', f'tools/train.py {config}'):
        assert words in said
    pictures = tmp_path / 'pictures'
    succeed('tools/browse_dataset.py', config, '--out', pictures, '--number=2')
    assert len(list(pictures.glob('*.png'))) == 2
    work = tmp_path / 'work'
    succeed(
        'tools/train.py',
        config,
        '--work-dir',
        work,
        '--cfg-options',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
    )
    checkpoint = work / 'iter_2.pth'
    assert 'mIoU' in succeed(
        'tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'test'
    )
    out = tmp_path / 'predicted'
    succeed(
        'tools/predict.py',
        config,
        checkpoint,
        tmp_path / 'folder/JPEGImages',
        '--out',
        out,
        '--labels',
        tmp_path / 'mine/maps/JPEGImages',
    )
    scores = json.loads((out / 'scores.json').read_text(encoding='utf-8'))
    assert len(scores['images']) == 6


TOOLS = {
    'tools/train.py': (),
    'tools/browse_dataset.py': ('--out', 'pictures'),
    'tools/doctor.py': (),
}


@pytest.fixture(scope='module')
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project whose label maps were exchanged for colours later."""
    root = tmp_path_factory.mktemp('faulty')
    FORMATS['palette'].write(root / 'folder', draw(4))
    bases = ROOT / 'configs/_base_'
    order = Order(root / 'folder', root / 'mine.py', bases, arch='atto')
    config = make(order, CPU).config
    for path in (root / 'mine/maps').rglob('*.png'):
        colours = np.random.default_rng(0).integers(0, 255, (96, 128, 3))
        write(path, colours.astype(np.uint8))
    return config


@pytest.mark.slow
@pytest.mark.parametrize('name', TOOLS)
def test_tools_name_the_file_before_any_work(
    name: str, faulty: Path, tmp_path: Path
) -> None:
    where = ['--config', faulty] if 'doctor' in name else [faulty]
    done = tool(ROOT / name, *where, *TOOLS[name], cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said[-3000:]
    assert 'Traceback' not in said
    assert 'mine/maps/JPEGImages/scene ' in said
    assert 'a colour image with' in said
    assert 'new_project.py FOLDER turns colours into indices' in said
    assert list(tmp_path.iterdir()) == []
