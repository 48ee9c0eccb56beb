"""Over the configs of classification: as published, and they train."""

import copy
import re
from pathlib import Path
from typing import NamedTuple, Optional

import pytest
import torch
from masked import TINY
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from tiny import load, written

from mmconvnext import ARCHS
from mmconvnext.cli import data_paths

ROOT = Path(__file__).parents[2]
METHODS = ('finetune', 'supervised', 'probe')
CONFIGS = sorted(
    path.name
    for method in METHODS
    for path in ROOT.glob(f'configs/{method}_*.py')
)
NAME = re.compile(
    r'(\w+?)_convnext(v2)?_([a-z]+)(-22k)?_(imagenet22k|imagenet|signs|own)\.py'
)


class Recipe(NamedTuple):
    """As published: arXiv 2301.00808, A.2, and arXiv 2201.03545, A.1."""

    rate: float  # for 256 images
    weight_decay: float
    decay: Optional[float]  # of the rate by layer
    kind: str
    drop_path: float
    epochs: int
    warmup: int
    smoothing: float
    mixup: float
    cutmix: float
    batch: int = 1024
    ema: bool = True
    size: int = 224
    top1: str = ''


def row(*values, **options) -> Recipe:
    return Recipe(*values, **options)


FT = 'finetune_convnextv2_{}_imagenet.py'
K22 = 'finetune_convnextv2_{}_imagenet22k.py'
K1 = 'finetune_convnextv2_{}-22k_imagenet.py'
V1 = 'supervised_convnext_{}_imagenet.py'
K22_OPTIONS = dict(batch=4096, ema=False)
K1_OPTIONS = dict(batch=512, size=384)
PUBLISHED = {
    FT.format('atto'): row(
        2e-4, 0.3, 0.9, 'single', 0.1, 600, 0, 0.2, 0, 0, top1='76.7'
    ),
    FT.format('femto'): row(
        2e-4, 0.05, 0.9, 'single', 0, 600, 0, 0.2, 0.3, 0.3, top1='78.5'
    ),
    FT.format('pico'): row(
        2e-4, 0.3, 0.9, 'single', 0, 600, 0, 0.2, 0.3, 0.3, top1='80.3'
    ),
    FT.format('nano'): row(
        2e-4, 0.3, 0.9, 'single', 0.1, 600, 0, 0.2, 0.5, 0.5, top1='81.9'
    ),
    FT.format('tiny'): row(
        8e-4, 0.05, 0.9, 'single', 0.2, 300, 40, 0.1, 0.8, 1, top1='83.0'
    ),
    FT.format('base'): row(
        6.25e-4, 0.05, 0.6, 'group', 0.1, 100, 20, 0.1, 0.8, 1, top1='84.9'
    ),
    FT.format('large'): row(
        6.25e-4, 0.05, 0.6, 'group', 0.2, 100, 20, 0.1, 0.8, 1, top1='85.8'
    ),
    FT.format('huge'): row(
        1.25e-3, 0.05, 0.75, 'single', 0.3, 50, 10, 0.1, 0.8, 1, top1='86.3'
    ),
    **{
        K22.format(arch): row(
            2.5e-4,
            0.05,
            decay,
            'single',
            drop,
            90,
            5,
            0.1,
            0.8,
            1,
            size=384 if arch == 'huge' else 224,
            **K22_OPTIONS,
        )
        for arch, decay, drop in [
            ('nano', 0.9, 0),
            ('tiny', 0.9, 0),
            ('base', 0.8, 0.1),
            ('large', 0.8, 0.1),
            ('huge', 0.8, 0.3),
        ]
    },
    **{
        K1.format(arch): row(
            2.5e-5,
            1e-8,
            decay,
            'single',
            drop,
            epochs,
            0,
            0.1,
            0,
            0,
            ema=arch != 'huge',
            top1=top1,
            **K1_OPTIONS,
        )
        for arch, decay, drop, epochs, top1 in [
            ('nano', 0.9, 0.1, 90, '83.4'),
            ('tiny', 0.9, 0.1, 90, '85.1'),
            ('base', 0.8, 0.2, 30, '87.7'),
            ('large', 0.8, 0.3, 30, '88.2'),
            ('huge', 0.85, 0.5, 30, '88.7'),
        ]
    },
    **{
        V1.format(arch): row(
            2.5e-4,
            0.05,
            1,
            'layer_wise',
            drop,
            300,
            20,
            0.1,
            0.8,
            1,
            batch=4096,
            top1=top1,
        )
        for arch, drop, top1 in [
            ('tiny', 0.1, '82.1'),
            ('small', 0.4, '83.1'),
            ('base', 0.5, '83.8'),
            ('large', 0.5, '84.3'),
        ]
    },
}


def head_of(name: str) -> str:
    text = (ROOT / 'configs' / name).read_text(encoding='utf-8')
    return ' '.join(text.split('_base_ =')[0].split('\n# '))


def test_every_published_recipe_is_there() -> None:
    found = {n for n in CONFIGS if not n.startswith('probe')}
    own = {n for n in found if n.endswith(('_own.py', '_signs.py'))}
    assert found - own == set(PUBLISHED)


@pytest.mark.parametrize('name', CONFIGS)
def test_names_say_what_is_in_them(name: str) -> None:
    cfg, match = load(name), NAME.fullmatch(name)
    method, version, arch, _, data = match.groups()
    assert method in METHODS
    assert cfg.model.backbone.arch == arch
    kind = cfg.model.backbone.type
    assert kind == 'mmconvnext.ConvNeXt' + ('V2' if version else '')
    assert cfg.data_root.split('/')[1] == data
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        (path,) = data_paths(cfg[loader].dataset)
        assert str(path).startswith(cfg.data_root + '/')
    head = head_of(name)
    assert f'configs/{name}' in head
    assert re.search(r'\d+ epochs', head)
    if data.startswith('imagenet'):
        assert 'Published: ' in head
        assert 'Hardware assumed: ' in head


@pytest.mark.parametrize('name', PUBLISHED)
def test_settings_are_the_published_ones(name: str) -> None:
    cfg, recipe = load(name), PUBLISHED[name]
    wrapper, model = cfg.optim_wrapper, cfg.model
    assert wrapper.optimizer.type == 'AdamW'
    assert wrapper.optimizer.lr == pytest.approx(
        recipe.rate * recipe.batch / 256
    )
    assert wrapper.optimizer.betas == (0.9, 0.999)
    assert wrapper.optimizer.weight_decay == recipe.weight_decay
    assert wrapper.paramwise_cfg.decay_rate == recipe.decay
    if recipe.decay != 1:
        assert wrapper.paramwise_cfg.decay_type == recipe.kind
    assert model.backbone.get('drop_path_rate', 0) == recipe.drop_path
    assert model.label_smoothing == recipe.smoothing
    mixing = model.get('mixing') or dict(mixup=0, cutmix=0)
    assert (mixing['mixup'], mixing['cutmix']) == (recipe.mixup, recipe.cutmix)
    assert model.head_init_scale == (1.0 if 'supervised' in name else 0.001)
    assert model.data_preprocessor.erase_prob == 0.25
    classes = 21841 if name.endswith('22k.py') else 1000
    assert model.num_classes == classes
    if recipe.top1:
        assert f'Published: top-1 {recipe.top1} (arXiv' in head_of(name)


@pytest.mark.parametrize('name', PUBLISHED)
def test_batch_and_average_are_the_published_ones(name: str) -> None:
    cfg, recipe = load(name), PUBLISHED[name]
    size = cfg.train_dataloader.batch_size
    counts = cfg.optim_wrapper.accumulative_counts
    assert 8 * size * counts == recipe.batch
    assert cfg.auto_scale_lr.base_batch_size == recipe.batch
    words = f'8 GPUs x {size}' + f' x {counts} accumulated' * (counts > 1)
    assert words in head_of(name)
    averages = [h for h in cfg.custom_hooks if h.type == 'EMAHook']
    assert len(averages) == recipe.ema
    for hook in averages:  # after each step of the optimiser
        assert (hook.momentum, hook.interval) == (1e-4, counts)


@pytest.mark.parametrize('name', PUBLISHED)
def test_schedule_is_the_published_one(name: str) -> None:
    cfg, recipe = load(name), PUBLISHED[name]
    assert cfg.train_cfg.max_epochs == recipe.epochs
    *warmup, cosine = cfg.param_scheduler
    assert len(warmup) == bool(recipe.warmup)
    for part in warmup:
        assert (part.type, part.begin) == ('LinearLR', 0)
        assert part.end == recipe.warmup
    assert cosine.type == 'CosineAnnealingLR'
    assert (cosine.begin, cosine.end) == (recipe.warmup, recipe.epochs)
    lowest = cosine.eta_min_ratio * cfg.optim_wrapper.optimizer.lr
    assert lowest == pytest.approx(1e-6)


@pytest.mark.parametrize('name', PUBLISHED)
def test_pictures_are_the_published_ones(name: str) -> None:
    cfg, recipe = load(name), PUBLISHED[name]
    train = {s.type.split('.')[1]: s for s in read(cfg, 'train').pipeline}
    assert train['RandomResizedCrop'].scale == recipe.size
    assert train['RandomResizedCrop'].area_range == (0.08, 1.0)
    assert 'RandAugment' in train
    for split in ('val', 'test'):
        crop = read(cfg, split).pipeline[1]
        assert crop.scale == recipe.size
        assert crop.crop_ratio == (0.875 if recipe.size == 224 else None)


def read(cfg: Config, split: str) -> Config:
    return cfg[f'{split}_dataloader'].dataset


@pytest.mark.parametrize('name', CONFIGS)
def test_starts_from_what_the_name_says(name: str) -> None:
    model = load(name).model
    arch = model.backbone.arch
    start = model.backbone.get('init_cfg')
    if '-22k' in name:
        before = load(K22.format(arch)).train_cfg.max_epochs
        file = f'finetune_convnextv2_{arch}_imagenet22k/epoch_{before}.pth'
        assert model.init_cfg.checkpoint == f'work_dirs/{file}'
        assert model.init_cfg.head is False
        assert start is None
    elif 'supervised' in name or name.endswith('_signs.py'):
        assert start is None
    else:
        assert f'convnextv2_{arch}_1k_224_fcmae.pt' in start.checkpoint


@pytest.mark.parametrize('name', CONFIGS)
def test_survives_being_written_out(name: str, tmp_path: Path) -> None:
    cfg = load(name)
    assert written(cfg, tmp_path / name).to_dict() == cfg.to_dict()


def build(cfg: Config, device: str = 'cpu') -> torch.nn.Module:
    init_default_scope(cfg.default_scope)
    with torch.device(device):
        return MODELS.build(cfg.model)


def optimizer_of(cfg: Config, model: torch.nn.Module):
    wrapper = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
    for key in ('dtype', 'loss_scale', 'accumulative_counts'):
        wrapper.pop(key, None)
    return build_optim_wrapper(model, wrapper)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_at_its_real_size(name: str) -> None:
    cfg = load(name)
    model = build(cfg, 'meta')
    assert model.backbone.dims == ARCHS[cfg.model.backbone.arch].dims
    groups = optimizer_of(cfg, model).optimizer.param_groups
    names = {n for g in groups for n in g['param_names']}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == trained
    if name.startswith('probe'):
        parts = {'head.weight', 'head.bias', 'norm.weight', 'norm.bias'}
        assert trained == parts


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_a_step(name: str) -> None:
    cfg = copy.deepcopy(load(name))
    # A dropped path would leave parameters without gradients.
    cfg.model.backbone.update(arch=TINY, init_cfg=None, drop_path_rate=0.0)
    cfg.model.update(init_cfg=None, num_classes=6)
    model = build(cfg)
    model.init_weights()
    wrapper = optimizer_of(cfg, model)
    before = {n: p.clone() for n, p in model.named_parameters()}
    batch = dict(
        inputs=list(torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)),
        data_samples=[BaseDataElement() for _ in range(4)],
    )
    for i, sample in enumerate(batch['data_samples']):
        sample.set_field(torch.tensor(i), 'gt_label')
    torch.manual_seed(0)
    found = model.train_step(batch, wrapper)
    assert float(found['loss'].detach()) == pytest.approx(1.79, abs=0.8)
    for key, value in model.named_parameters():
        if value.requires_grad and 'gamma' not in key:
            assert not torch.equal(value, before[key]), key
        elif not value.requires_grad:
            assert torch.equal(value, before[key]), key
