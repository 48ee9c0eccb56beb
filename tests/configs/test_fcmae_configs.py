"""Over the configs of FCMAE: the published recipe, and all of them train."""

import copy
import re
from pathlib import Path
from typing import Iterator

import masked
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from tiny import load, written

from mmconvnext import ARCHS
from mmconvnext.cli import data_paths

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.name for path in ROOT.glob('configs/fcmae_*.py'))
RECIPES = [name for name in CONFIGS if name.endswith('_imagenet.py')]
LONGER = ('train_cfg.max_epochs=1600', 'param_scheduler.1.end=1600')


def build(cfg: Config, device: str = 'cpu') -> torch.nn.Module:
    init_default_scope(cfg.default_scope)
    with torch.device(device):
        return MODELS.build(cfg.model)


def test_every_arch_of_the_paper_has_a_recipe():
    paper = {'atto', 'femto', 'pico', 'nano', 'tiny', 'base', 'large', 'huge'}
    found = {re.search(r'v2_(\w+)_imagenet', name)[1] for name in RECIPES}
    assert found >= paper


@pytest.mark.parametrize('name', CONFIGS)
def test_names_say_what_is_in_them(name: str):
    cfg = load(name)
    data = cfg.data_root.split('/')[1]
    assert name == f'fcmae_convnextv2_{cfg.model.backbone.arch}_{data}.py'
    (path,) = data_paths(cfg.train_dataloader.dataset)
    assert str(path).startswith(cfg.data_root + '/')
    head = (ROOT / 'configs' / name).read_text().split('_base_ =')[0]
    assert f'configs/{name}' in head
    assert re.search(r'[\d,]+ epochs x ', head)


@pytest.mark.parametrize('name', RECIPES)
def test_settings_are_the_recipe(name: str):
    cfg = load(name)
    head = (ROOT / 'configs' / name).read_text().split('_base_ =')[0]
    size = cfg.train_dataloader.batch_size
    accumulated = cfg.optim_wrapper.accumulative_counts
    assert 8 * size * accumulated == 4096
    assert f'8 GPUs x {size} x {accumulated} accumulated' in head
    assert 'Published: ' in head
    assert all(option in head for option in LONGER)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW'
    assert optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert optimizer.betas == (0.9, 0.95)
    assert optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.auto_scale_lr.base_batch_size == 4096
    model = cfg.model
    assert (model.mask_ratio, model.patch_size) == (0.6, 32)
    assert (model.decoder_depth, model.decoder_dim) == (1, 512)
    assert model.norm_pix_loss
    assert model.grn_scope == 'sample'
    assert cfg.train_cfg.max_epochs == 800


def rates(cfg: Config, per_epoch: int) -> Iterator[float]:
    """Yield the rate of each iteration for a base rate of 1."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    built = [
        PARAM_SCHEDULERS.get(row['type']).build_iter_from_epoch(
            **{k: v for k, v in row.items() if k not in DROPPED},
            optimizer=optimizer,
            epoch_length=per_epoch,
        )
        for row in copy.deepcopy(cfg.param_scheduler)
    ]
    for _ in range(cfg.train_cfg.max_epochs * per_epoch):
        yield optimizer.param_groups[0]['lr']
        for scheduler in built:
            scheduler.step()


DROPPED = ('type', 'convert_to_iter_based')


@pytest.mark.parametrize('epochs', [800, 1600])
def test_schedule_at_its_corners(epochs: int):
    cfg = load(RECIPES[0])
    if epochs == 1600:
        pairs = (option.split('=') for option in LONGER)
        cfg.merge_from_dict({key: int(value) for key, value in pairs})
    found = list(rates(cfg, per_epoch=10))
    assert len(found) == epochs * 10
    assert found[0] == pytest.approx(1e-6)
    assert found[200] == pytest.approx(0.5, abs=0.01)
    assert found[400] == pytest.approx(1.0)
    middle = 400 + (epochs - 40) * 5
    assert found[middle] == pytest.approx(0.5, abs=0.001)
    assert found[-1] < 1e-6


@pytest.mark.parametrize('name', CONFIGS)
def test_survives_being_written_out(name: str, tmp_path: Path):
    cfg = load(name)
    assert written(cfg, tmp_path / name).to_dict() == cfg.to_dict()


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_at_its_real_size(name: str):
    cfg = load(name)
    model = build(cfg, 'meta')
    assert model.backbone.dims == ARCHS[cfg.model.backbone.arch].dims
    optim = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
    for key in ('dtype', 'loss_scale'):
        optim.pop(key, None)
    groups = build_optim_wrapper(model, optim).optimizer.param_groups
    decay = {n: g['weight_decay'] for g in groups for n in g['param_names']}
    assert set(decay) == {n for n, _ in model.named_parameters()}
    assert {g['lr'] for g in groups} == {cfg.optim_wrapper.optimizer.lr}
    spared = [n for n, value in decay.items() if not value]
    for part in ('grn.gamma', 'grn.beta', 'norm.weight', 'bias'):
        assert any(n.endswith(part) for n in spared)
    assert all(decay[n] for n in decay if n.endswith('pwconv1.weight'))


@pytest.mark.parametrize('name', [CONFIGS[0], RECIPES[-1]])
def test_trains_a_step(name: str):
    cfg = load(name)
    cfg.model.backbone.arch = masked.TINY
    cfg.model.decoder_dim = 16
    model = build(cfg)
    model.init_weights()
    optim = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
    for key in ('dtype', 'loss_scale', 'accumulative_counts'):
        optim.pop(key, None)
    wrapper = build_optim_wrapper(model, optim)
    before = {n: p.clone() for n, p in model.named_parameters()}
    images = torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8)
    found = model.train_step(dict(inputs=list(images)), wrapper)
    assert set(found) == {'loss', 'hidden'}
    # Targets have variance 1, and the model is untrained.
    assert float(found['loss']) == pytest.approx(1, abs=0.1)
    assert float(found['hidden']) == pytest.approx(4 / 6)
    for key, value in model.named_parameters():
        assert not torch.equal(value, before[key]), key
