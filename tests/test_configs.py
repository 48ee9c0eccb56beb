"""Over the folder configs/: everything there builds and trains a step."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmconvnext.launch import data_paths

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.name for path in ROOT.glob('configs/*.py'))
METHODS = ('upernet', 'mask_rcnn', 'cascade_mask_rcnn')


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def shrink(cfg: Config) -> dict:
    """The config's model at tiny width: same parts, same channel logic."""
    model = copy.deepcopy(cfg.model)
    model.backbone.pop('init_cfg', None)
    model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32])
    if 'neck' in model:
        model.neck.in_channels = [8, 16, 24, 32]
    else:
        model.decode_head.update(in_channels=[8, 16, 24, 32], channels=8)
        model.auxiliary_head.update(in_channels=24, channels=8)
        model.data_preprocessor.size = (64, 96)
    return model


def batch(scope: str) -> dict:
    """Two images with ground truth, as the host's loader yields them."""
    inputs = [torch.randint(0, 255, (3, 64, 96)).byte() for _ in range(2)]
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), pad_shape=(64, 96))
    if scope == 'mmseg':
        from mmseg.structures import SegDataSample

        label = PixelData(data=torch.randint(0, 9, (1, 64, 96)))
        samples = [
            SegDataSample(metainfo=meta, gt_sem_seg=label) for _ in inputs
        ]
    else:
        samples = [detection_sample(meta) for _ in inputs]
    return dict(inputs=inputs, data_samples=samples)


def detection_sample(meta: dict):
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    mask = np.zeros((1, 64, 96), np.uint8)
    mask[0, 10:40, 20:60] = 1
    truth = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 60.0, 40.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks(mask, 64, 96),
    )
    sample = DetDataSample(
        metainfo=dict(meta, batch_input_shape=(64, 96), scale_factor=(1, 1)),
        gt_instances=truth,
    )
    sample.ignored_instances = truth[:0]
    return sample


@pytest.mark.parametrize('name', CONFIGS)
def test_names_are_predictable(name: str) -> None:
    cfg = load(name)
    arch = cfg.model.backbone.arch
    version = {'ConvNeXt': '', 'ConvNeXtV2': 'v2'}
    backbone = version[cfg.model.backbone.type.split('.')[1]]
    method = name.split('_convnext')[0]
    assert method in METHODS
    assert name.startswith(f'{method}_convnext{backbone}_{arch}_')
    data = name[:-3].split('_')[-1]
    assert cfg.data_root.split('/')[1] == data


@pytest.mark.parametrize('name', CONFIGS)
def test_opens_with_its_command(name: str) -> None:
    text = (ROOT / 'configs' / name).read_text()
    assert f'configs/{name}' in text.split('_base_ =')[0]
    assert 'mmdet::' not in text
    assert 'mmseg::' not in text


@pytest.mark.parametrize('name', CONFIGS)
def test_channels_fit_the_arch(name: str) -> None:
    cfg = load(name)
    with torch.device('meta'):
        backbone = MODELS.build({**cfg.model.backbone, 'init_cfg': None})
    if 'neck' in cfg.model:
        assert tuple(cfg.model.neck.in_channels) == backbone.out_channels
    else:
        head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
        assert tuple(head.in_channels) == backbone.out_channels
        assert aux.in_channels == backbone.out_channels[aux.in_index]
        classes = cfg.val_dataloader.dataset.get('metainfo', {}).get(
            'classes', range(150)
        )
        assert head.num_classes == aux.num_classes == len(classes)


@pytest.mark.parametrize('name', CONFIGS)
def test_data_lies_below_the_data_root(name: str) -> None:
    cfg = load(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        paths = list(data_paths(cfg[loader].dataset))
        assert len(paths) == 2
        for path in paths:
            assert str(path).startswith(cfg.data_root + '/')


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_a_step(name: str) -> None:
    cfg = load(name)
    scope = cfg.default_scope
    init_default_scope(scope)
    model = revert_sync_batchnorm(MODELS.build(shrink(cfg)))
    model.init_weights()
    model.train()
    optim = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
    for key in ('dtype', 'loss_scale'):
        optim.pop(key, None)
    wrapper = build_optim_wrapper(model, optim)
    before = model.backbone.stages[3][0].pwconv1.weight.clone()
    losses = model.train_step(batch(scope), wrapper)
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert not torch.equal(before, model.backbone.stages[3][0].pwconv1.weight)
    model.eval()
    with torch.no_grad():
        results = model.test_step(batch(scope))
    assert len(results) == 2
