"""Checkpoints load whole or not at all, directly and through mmengine."""

from __future__ import annotations

import copy
import os
import random
import re

import pytest
import torch
from checkpoints import (
    ARCH,
    CASES,
    DEPTHS,
    DIMS,
    MODELS,
    Intruder,
    assert_close,
    assert_refused,
    backbone,
    import_or_none,
    randomise,
    same,
    save,
    snapshot,
    spell,
    stage_features,
    wrap,
)
from imports import import_zoo
from torch import nn

from mmconvnext import checkpoint
from mmconvnext.checkpoint import (
    CheckpointError,
    convert,
    engine,
    export,
    load,
    weights_io,
)


@pytest.mark.parametrize('name', [n for n, v in CASES if v == 2])
def test_lost_grn_raises(name: str) -> None:
    state = spell(randomise(backbone(2)), name)
    zero = {k: v * (0 if 'grn' in k else 1) for k, v in state.items()}
    assert_refused(backbone(2), zero, 'GRN is zero')
    none = {k: v for k, v in state.items() if 'grn' not in k}
    assert_refused(backbone(2), none, 'lost its GRN')


@pytest.mark.parametrize('name, version', CASES)
def test_another_arch_or_version_raises(name: str, version: int) -> None:
    state = spell(randomise(backbone(version)), name)
    deeper = backbone(version, arch=dict(depths=(1, 2, 4, 1), dims=DIMS))
    wider = backbone(version, arch=dict(depths=DEPTHS, dims=(8, 16, 24, 40)))
    text = assert_refused(deeper, state, 'the model is')
    assert 'depths 1 2 3 1' in text and 'depths 1 2 4 1' in text
    assert_refused(wider, state, 'dims 8 16 24 40')
    assert_refused(backbone(3 - version), state, f'V{version}, the model')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_raise(value: float) -> None:
    state = backbone(1).state_dict()
    state['stages.2.1.pwconv1.bias'][3] = value
    assert_refused(backbone(1), state, 'stages.2.1.pwconv1.bias.*infinite')


def test_half_precision_loads_in_the_type_of_the_model() -> None:
    state = {
        k: v.half() for k, v in randomise(backbone(1)).state_dict().items()
    }
    target = backbone(1)
    load(target, state)
    assert target.stages[0][0].pwconv1.weight.dtype == torch.float32
    assert torch.equal(target.norm0.weight.half(), state['norm0.weight'])


def test_last_norm_becomes_norm3_only_when_asked() -> None:
    state = spell(randomise(backbone(1)), 'timm')
    state['head.norm.weight'] = torch.full((32,), 3.0)
    state['head.norm.bias'] = torch.full((32,), 2.0)
    target = backbone(1)
    account = load(target, state)
    assert set(account.absent) >= {'norm3.weight', 'norm3.bias'}
    assert (target.norm3.weight == 1).all()
    account = load(target, state, final_norm=True)
    assert (target.norm3.weight == 3).all() and 'norm3.bias' in account.changed
    bare = spell(backbone(1), 'timm')
    assert_refused(backbone(1), bare, 'no last norm', final_norm=True)
    part = backbone(1, out_indices=(0, 1))
    assert_refused(part, state, 'model has no norm3', final_norm=True)
    both = {f'norm.{p}': torch.ones(32) for p in ('weight', 'bias')}
    both = {**backbone(1).state_dict(), **both}
    assert_refused(backbone(1), both, 'norm3 of its own', final_norm=True)


def test_lone_norm3_of_mmpretrain_is_its_classifiers() -> None:
    state = {
        key: value
        for key, value in spell(randomise(backbone(1)), 'mmpretrain').items()
        if not re.match(r'norm[0-2]', key)
    }
    state = wrap(state, 'backbone.')
    target = backbone(1)
    account = load(target, state)
    assert 'norm3.weight' in account.absent
    assert (target.norm3.weight == 1).all()
    load(target, state, final_norm=True)
    assert torch.equal(target.norm3.weight, state['backbone.norm3.weight'])


@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (0, 3)])
def test_a_part_of_a_backbone_takes_its_part(out_indices: tuple) -> None:
    source = randomise(backbone(2))
    target = backbone(2, out_indices=out_indices)
    account = load(target, source.state_dict())
    full = source.state_dict()
    assert all(torch.equal(v, full[k]) for k, v in target.state_dict().items())
    assert set(account.dropped) == set(full) - set(target.state_dict())
    if max(out_indices) < 3:
        assert_refused(backbone(2), target.state_dict(), 'the model is')


@pytest.mark.parametrize('channels', [1, 2, 4, 5, 6, 10])
def test_other_input_channels_keep_the_sum(channels: int) -> None:
    source = randomise(backbone(1))
    target = backbone(1, in_channels=channels)
    account = load(target, source.state_dict())
    assert f'3 -> {channels}' in str(account)
    grey = torch.randn(1, 1, 64, 96)
    got = stage_features(target, grey.expand(-1, channels, -1, -1))
    expected = stage_features(source, grey.expand(-1, 3, -1, -1))
    assert_close(got, expected)
    state = target.state_dict()
    if channels != 3:
        assert_refused(backbone(1), state, f'takes {channels} input channels')


def test_convert_leaves_model_and_source_alone() -> None:
    source, target = randomise(backbone(2)), backbone(2)
    state, before = source.state_dict(), snapshot(target)
    copied = copy.deepcopy(state)
    result, _ = convert(state, target)
    assert same(before, target.state_dict()) and same(copied, state)
    target.load_state_dict(result, strict=True)
    assert same(copied, target.state_dict())


def test_a_detector_is_not_a_backbone() -> None:
    model = nn.Module()
    model.backbone = backbone(1)
    assert_refused(model, backbone(1).state_dict(), 'model.backbone')


def test_export_takes_the_backbone_of_a_detector() -> None:
    source = randomise(backbone(1))
    state = wrap(source.state_dict(), 'backbone.')
    state['neck.weight'] = torch.zeros(1)
    assert same(export(state, 'native'), source.state_dict())


def test_export_refuses_what_it_cannot_write() -> None:
    with pytest.raises(CheckpointError, match='none of official, timm'):
        export(backbone(1), 'keras')
    with pytest.raises(CheckpointError, match='all four stages'):
        export(backbone(1, out_indices=(0, 1)), 'timm')


SMALL = dict(
    type='mmconvnext.ConvNeXt',
    arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
)
SYNC_BN = dict(type='SyncBN')
UPERNET = dict(
    type='EncoderDecoder',
    backbone=SMALL,
    decode_head=dict(
        type='UPerHead',
        in_channels=[8, 16, 24, 32],
        in_index=[0, 1, 2, 3],
        channels=8,
        num_classes=3,
        norm_cfg=SYNC_BN,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=24,
        in_index=2,
        channels=8,
        num_convs=1,
        concat_input=False,
        num_classes=3,
        norm_cfg=SYNC_BN,
    ),
    test_cfg=dict(mode='whole'),
)
# Names in files of mmseg 0.x and mmdet 2, one of each kind.
MMSEG_0 = (
    'decode_head.conv_seg.weight',
    'decode_head.psp_modules.0.1.conv.weight',
    'decode_head.bottleneck.bn.running_mean',
    'decode_head.lateral_convs.0.conv.weight',
    'decode_head.fpn_bottleneck.conv.weight',
    'auxiliary_head.convs.0.bn.weight',
    'auxiliary_head.conv_seg.bias',
)


def test_a_whole_upernet_of_mmseg_0_loads_strictly() -> None:
    import_or_none('torchvision')
    mmseg = import_zoo('mmseg.models')
    from mmengine.registry import init_default_scope

    init_default_scope('mmseg')
    model = mmseg.build_segmentor(copy.deepcopy(UPERNET))
    state = randomise(model).state_dict()
    assert set(MMSEG_0) <= set(state)
    raw = {'meta': {'CLASSES': ('a',)}, 'state_dict': snapshot(model)}
    result, account = checkpoint.export_detector(raw)
    assert not account.dropped and len(account.loaded) == len(state)
    model.load_state_dict(result, strict=True)
    assert same(raw['state_dict'], model.state_dict())
    with pytest.raises(CheckpointError, match='not backbone'):
        checkpoint.export_detector(
            wrap(backbone(1).state_dict(), 'backbone.bottom_up.')
        )


# The authors' Mask R-CNN and Cascade Mask R-CNN, by the names of mmdet 2.
MMDET_2 = {
    'mask_rcnn': (
        'neck.lateral_convs.0.conv.weight',
        'neck.fpn_convs.3.conv.bias',
        'rpn_head.rpn_conv.weight',
        'rpn_head.rpn_cls.bias',
        'rpn_head.rpn_reg.weight',
        'roi_head.bbox_head.shared_fcs.0.weight',
        'roi_head.bbox_head.fc_cls.weight',
        'roi_head.bbox_head.fc_reg.weight',
        'roi_head.mask_head.convs.0.conv.weight',
        'roi_head.mask_head.upsample.weight',
        'roi_head.mask_head.conv_logits.bias',
    ),
    'cascade_mask_rcnn': (
        'roi_head.bbox_head.2.shared_convs.0.conv.weight',
        'roi_head.bbox_head.2.shared_convs.0.bn.running_var',
        'roi_head.bbox_head.2.shared_fcs.0.weight',
        'roi_head.bbox_head.2.fc_cls.weight',
        'roi_head.mask_head.2.convs.3.conv.weight',
    ),
}


def detector_config(name: str) -> dict:
    from mmengine.config import Config

    folder = os.path.dirname(import_zoo('mmdet').__file__)
    file = f'{name.replace("_", "-")}_r50_fpn.py'
    path = f'{folder}/.mim/configs/_base_/models/{file}'
    cfg = Config.fromfile(path).model
    cfg.backbone = copy.deepcopy(SMALL)
    cfg.neck.in_channels = [8, 16, 24, 32]
    if name.startswith('cascade'):
        for head in cfg.roi_head.bbox_head:
            head.update(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                norm_cfg=SYNC_BN,
            )
    return cfg


@pytest.mark.parametrize('name', MMDET_2)
def test_a_whole_detector_of_mmdet_2_loads_strictly(name: str) -> None:
    import_or_none('torchvision')
    import_zoo('mmdet.models')
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    model = MODELS.build(detector_config(name))
    raw = {'state_dict': snapshot(model), 'meta': {}}
    assert set(MMDET_2[name]) <= set(raw['state_dict'])
    result, _ = checkpoint.export_detector(raw)
    model.load_state_dict(result, strict=True)
    assert same(raw['state_dict'], model.state_dict())


@pytest.fixture
def safe_loading(monkeypatch) -> None:
    from mmengine.runner import checkpoint as loaders

    loader = loaders.CheckpointLoader
    monkeypatch.setattr(loader, '_schemes', loader._schemes.copy())
    monkeypatch.setattr(loaders, 'load_from_http', loaders.load_from_http)
    checkpoint.install_safe_loading()


def pretrained(path: str, **kwargs) -> dict:
    return dict(type='Pretrained', checkpoint=path, **kwargs)


def test_init_cfg_loads_once_after_all_others(tmp_path, monkeypatch) -> None:
    calls = []
    original = engine.load
    monkeypatch.setattr(
        engine,
        'load',
        lambda *a, **k: calls.append(a) or original(*a, **k),
    )
    source = randomise(backbone(2))
    path = save(tmp_path, wrap(spell(source, 'transformers'), 'backbone.'))
    cfg = [
        pretrained(path, prefix='backbone.', map_location='cpu'),
        dict(type='Constant', layer='Conv2d', val=7.0),
    ]
    target = backbone(2, init_cfg=cfg)
    target.init_weights()
    assert same(source.state_dict(), target.state_dict())
    assert len(calls) == 1 and target.init_cfg == cfg and target.is_init
    target.init_weights()
    assert len(calls) == 1


def test_init_cfg_keeps_the_record_of_mmengine(tmp_path, monkeypatch) -> None:
    path = save(tmp_path, spell(randomise(backbone(1)), 'timm'))
    target = backbone(1, init_cfg=pretrained(path))
    seen = {}

    def dump(self) -> None:
        for name, param in self.named_parameters():
            seen[name] = self._params_init_info[param]['init_info']

    monkeypatch.setattr(MODELS[1], '_dump_init_info', dump)
    target.init_weights()
    assert seen['stages.0.0.dwconv.weight'] == f'Pretrained: load from {path}'
    assert 'same before' in seen['norm0.weight']
    assert not hasattr(target, '_params_init_info')


@pytest.mark.parametrize(
    'kwargs, match',
    [
        (dict(prefix='neck'), "under prefix='neck'"),
        (dict(ema=True), 'EMA'),
        (dict(sha256='0' * 64), 'sha256'),
        (dict(strict=False), "does not take .'strict'"),
        (dict(final_norm=True), 'no last norm'),
    ],
)
def test_init_cfg_raises_on_anything_wrong(tmp_path, kwargs, match) -> None:
    path = save(tmp_path, spell(randomise(backbone(1)), 'official'))
    target = backbone(1, init_cfg=pretrained(path, **kwargs))
    before = snapshot(target)
    with pytest.raises(ValueError, match=match):
        target.init_weights()
    assert same(before, target.state_dict()) and not target.is_init


def runner(tmp_path, init_cfg: dict, **kwargs):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    import_or_none('torchvision')  # the runner's log of versions does

    class Toy(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            cfg = dict(type='mmconvnext.ConvNeXt', arch=ARCH)
            from mmengine.registry import MODELS

            self.backbone = MODELS.build({**cfg, 'init_cfg': init_cfg})

        def forward(self, inputs, mode: str = 'tensor'):
            maps = self.backbone(inputs)
            return dict(loss=sum(m.square().mean() for m in maps))

    return Runner(
        Toy(),
        str(tmp_path / 'work'),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(3, 32, 32))] * 2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-4)),
        train_cfg=dict(by_epoch=True, max_epochs=kwargs.pop('epochs', 1)),
        experiment_name=f'toy{random.random()}',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        **kwargs,
    )


def log_of(tmp_path) -> str:
    logs = sorted((tmp_path / 'work').glob('*/*.log'))
    return ''.join(path.read_text() for path in logs)


def test_a_training_run_logs_the_account_or_stops(
    tmp_path, safe_loading
) -> None:
    state = spell(randomise(backbone(1)), 'timm')
    path = save(tmp_path, state)
    runner(tmp_path, pretrained(path)).train()
    log = log_of(tmp_path)
    assert 'is         timm, ConvNeXt V1 custom' in log and 'Saving' in log
    assert (tmp_path / 'work/epoch_1.pth').exists()
    del state['stages.2.blocks.1.gamma']
    other = tmp_path / 'other'
    other.mkdir()
    with pytest.raises(
        CheckpointError, match='missing: stages.2.blocks.1.gamma'
    ):
        runner(other, pretrained(save(other, state))).train()
    assert 'Saving' not in log_of(other)


def test_mmengine_resumes_its_own_files_safely(tmp_path, safe_loading) -> None:
    path = save(tmp_path, spell(randomise(backbone(1)), 'timm'))
    first = runner(tmp_path, pretrained(path))
    first.train()
    state = snapshot(first.model)
    second = runner(
        tmp_path,
        pretrained(path),
        load_from=str(tmp_path / 'work/epoch_1.pth'),
        resume=True,
    )
    second.load_or_resume()
    assert second.epoch == 1 and same(state, second.model.state_dict())
    target = backbone(1)
    load(target, str(tmp_path / 'work/epoch_1.pth'))
    assert same(first.model.backbone.state_dict(), target.state_dict())
    third = runner(
        tmp_path,
        None,
        load_from=str(tmp_path / 'work/epoch_1.pth'),
        resume=True,
        epochs=2,
    )
    third.train()
    assert third.epoch == 2


@pytest.mark.parametrize('resume', [True, False])
def test_mmengine_runs_nothing_in_a_file(
    tmp_path, safe_loading, resume: bool
) -> None:
    trace = str(tmp_path / 'trace')
    state = {'state_dict': {}, 'x': Intruder(trace)}
    path = save(tmp_path, state)
    run = runner(tmp_path, None, load_from=path, resume=resume)
    with pytest.raises(CheckpointError, match='mkdir.*refused'):
        run.load_or_resume()
    assert not os.path.exists(trace)


@pytest.mark.parametrize(
    'source', ['s3://a/b.pth', 'petrel://a/b.pth', 'pavi://a', 'a:s3://b/c']
)
def test_mmengine_refuses_what_bypasses_the_reader(
    safe_loading, source: str
) -> None:
    from mmengine.runner.checkpoint import CheckpointLoader

    with pytest.raises(CheckpointError, match='fetch it'):
        CheckpointLoader.load_checkpoint(source)


def test_model_zoos_of_mmengine_go_through_the_reader(
    safe_loading, monkeypatch
) -> None:
    from mmengine.runner import checkpoint as loaders

    asked = []
    monkeypatch.setattr(
        weights_io, 'read', lambda source, **kwargs: asked.append(source)
    )
    for source in ('open-mmlab://resnet50_v1c', 'http://host/a.pth'):
        loaders.CheckpointLoader.load_checkpoint(source)
    assert len(asked) == 2 and asked[0].startswith('https://')


@pytest.mark.parametrize(
    'name, match', [('mine', 'own.pth of a list of your'), ('no', 'no such')]
)
def test_names_of_own_lists_are_refused(
    safe_loading, tmp_path, monkeypatch, name: str, match: str
) -> None:
    from mmengine.runner.checkpoint import CheckpointLoader

    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    own = tmp_path / 'open_mmlab.json'
    own.write_text('{"mine": "own.pth"}', encoding='utf-8')
    torch.save({}, tmp_path / 'own.pth')
    with pytest.raises(CheckpointError, match=match):
        CheckpointLoader.load_checkpoint(f'open-mmlab://{name}')
