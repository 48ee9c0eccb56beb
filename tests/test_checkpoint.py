"""Checkpoints of every format load whole or not at all, and run no code."""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import sys
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import import_zoo
from mmengine.logging import HistoryBuffer
from torch import nn

from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint, weights_io
from mmconvnext.checkpoint import (
    CheckpointError,
    convert,
    detect,
    export,
    load,
)
from mmconvnext.formats import EXPORTS, FORMATS, from_ours, rename

torch.set_num_threads(1)
DEPTHS, DIMS = (1, 2, 3, 1), (8, 16, 24, 32)
ARCH = dict(depths=DEPTHS, dims=DIMS)
MODELS = {1: ConvNeXt, 2: ConvNeXtV2}
ONLY = {'torchvision': (1,), 'transformers_dinov3': (1,), 'minkowski': (2,)}
CASES = [
    (name, version) for name in FORMATS for version in ONLY.get(name, (1, 2))
]
EXPORT_CASES = [(name, version) for name in EXPORTS for version in (1, 2)]
# What the tables are held against: names read off each system.
EXAMPLES = {
    'official': {
        'stages.2.1.pwconv1.weight': 'stages.2.1.pwconv1.weight',
        'stages.2.1.grn.gamma': 'stages.2.1.grn.gamma',
        'norm.bias': 'norm.bias',
    },
    'minkowski': {
        'downsample_layers.1.1.weight': 'downsample_layers.1.1.kernel',
        'downsample_layers.1.0.bias': 'downsample_layers.1.0.ln.bias',
        'stages.2.1.dwconv.weight': 'stages.2.1.dwconv.kernel',
        'stages.2.1.norm.weight': 'stages.2.1.norm.ln.weight',
        'stages.2.1.pwconv1.weight': 'stages.2.1.pwconv1.linear.weight',
    },
    'timm': {
        'downsample_layers.0.0.weight': 'stem.0.weight',
        'downsample_layers.2.1.bias': 'stages.2.downsample.1.bias',
        'stages.2.1.dwconv.weight': 'stages.2.blocks.1.conv_dw.weight',
        'stages.2.1.pwconv2.bias': 'stages.2.blocks.1.mlp.fc2.bias',
        'stages.2.1.grn.gamma': 'stages.2.blocks.1.mlp.grn.weight',
        'stages.2.1.gamma': 'stages.2.blocks.1.gamma',
        'norm.weight': 'head.norm.weight',
    },
    'timm_features': {
        'downsample_layers.0.1.weight': 'stem_1.weight',
        'downsample_layers.2.1.bias': 'stages_2.downsample.1.bias',
        'stages.0.0.norm.bias': 'stages_0.blocks.0.norm.bias',
    },
    'transformers': {
        'downsample_layers.0.0.weight': 'embeddings.patch_embeddings.weight',
        'downsample_layers.0.1.bias': 'embeddings.layernorm.bias',
        'downsample_layers.3.0.bias': (
            'encoder.stages.3.downsampling_layer.0.bias'
        ),
        'stages.2.1.gamma': 'encoder.stages.2.layers.1.layer_scale_parameter',
        'stages.2.1.grn.beta': 'encoder.stages.2.layers.1.grn.bias',
        'stages.2.1.norm.bias': 'encoder.stages.2.layers.1.layernorm.bias',
        'norm0.weight': 'hidden_states_norms.stage1.weight',
        'norm.bias': 'layernorm.bias',
    },
    'transformers_dinov3': {
        'downsample_layers.0.1.bias': 'stages.0.downsample_layers.1.bias',
        'stages.2.1.pwconv1.bias': 'stages.2.layers.1.pointwise_conv1.bias',
        'stages.2.1.norm.bias': 'stages.2.layers.1.layer_norm.bias',
    },
    'torchvision': {
        'downsample_layers.0.0.bias': 'features.0.0.bias',
        'downsample_layers.3.1.bias': 'features.6.1.bias',
        'stages.0.0.dwconv.bias': 'features.1.0.block.0.bias',
        'stages.3.1.norm.bias': 'features.7.1.block.2.bias',
        'stages.3.1.pwconv2.weight': 'features.7.1.block.5.weight',
        'stages.3.1.gamma': 'features.7.1.layer_scale',
        'norm.weight': 'classifier.0.weight',
    },
    'mmpretrain': {
        'stages.2.1.dwconv.bias': 'stages.2.1.depthwise_conv.bias',
        'stages.2.1.pwconv2.bias': 'stages.2.1.pointwise_conv2.bias',
        'norm3.weight': 'norm3.weight',
    },
}


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(0, 0.3)
    return model.eval()


def backbone(version: int, **kwargs) -> nn.Module:
    kwargs = {'arch': ARCH, **kwargs}
    return MODELS[version](**kwargs).eval()


def to_minkowski(name: str, value: torch.Tensor) -> torch.Tensor:
    """Invert what MinkowskiEngine stores (ConvNeXt-V2's remapping)."""
    if name.endswith('dwconv.weight'):
        flat = value.transpose(3, 2).reshape(value.size(0), -1)
        return flat.permute(1, 0)
    if re.fullmatch(r'downsample_layers\.[1-3]\.1\.weight', name):
        out, inner, k, _ = value.shape
        flat = value.transpose(3, 2).reshape(out, inner, k * k)
        return flat.permute(2, 1, 0)
    sparse = name.startswith('stages') and 'norm' not in name
    sparse &= 'pwconv' not in name and 'grn' not in name
    if value.dim() == 1 and (sparse or 'grn' in name):
        return value[None]
    return value


def spell(model: nn.Module, name: str) -> dict:
    """Write a backbone in a format, each tensor in its most foreign shape."""
    row = FORMATS[name]
    state = model.state_dict()
    result = {}
    for ours, value in state.items():
        theirs = rename(ours, list(row.names.items()))
        if theirs is None:
            continue
        for reshape in row.reads:
            if name != 'minkowski' and re.search(reshape.leaf + '$', ours):
                value = value.reshape(reshape.theirs(tuple(value.shape)))
                break
        if name == 'minkowski':
            value = to_minkowski(ours, value)
        result[theirs] = value.clone()
    return result


def snapshot(model: nn.Module) -> dict:
    return copy.deepcopy(model.state_dict())


def same(state: dict, other: dict, but: str = '^$') -> bool:
    return state.keys() == other.keys() and all(
        torch.equal(state[key], other[key])
        for key in state
        if not re.match(but, key)
    )


def stage_features(model: nn.Module, x: torch.Tensor) -> list:
    features = []
    for down, stage in zip(model.downsample_layers, model.stages):
        x = stage(down(x))
        features.append(x)
    return features


def assert_close(got: list, expected: list) -> float:
    """Equal within 2e-5 relative: float32 rounding through seven blocks."""
    assert len(got) == len(expected)
    worst = 0.0
    for a, b in zip(got, expected):
        assert a.shape == b.shape
        worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
    assert worst < 2e-5
    return worst


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96)


# --- the tables --------------------------------------------------------------


@pytest.mark.parametrize('name', FORMATS)
def test_names_are_those_of_each_system(name: str) -> None:
    pairs = list(FORMATS[name].names.items())
    for ours, theirs in EXAMPLES[name].items():
        assert rename(ours, pairs) == theirs
        assert rename(theirs, [(b, a) for a, b in pairs]) == ours


@pytest.mark.parametrize('name, version', CASES)
def test_every_format_loads_bit_identical(name: str, version: int) -> None:
    source, target = randomise(backbone(version)), backbone(version)
    state = spell(source, name)
    found = detect(state)
    assert (found.format, found.version) == (name, version)
    assert (found.depths, found.dims, found.arch) == (DEPTHS, DIMS, 'custom')
    account = load(target, state)
    norms = r'norm\d' if 'norm{i}.{p}' not in FORMATS[name].names else '^$'
    assert same(target.state_dict(), source.state_dict(), norms)
    assert set(account.loaded.values()) | set(account.dropped) == set(state)
    assert set(account.loaded) | set(account.absent) == set(
        target.state_dict()
    )


def test_kernels_of_minkowski_keep_their_orientation() -> None:
    source = randomise(backbone(2))
    state = spell(source, 'minkowski')
    kernel = state['downsample_layers.1.1.kernel']
    dense = source.downsample_layers[1][1].weight
    for h, w in ((0, 1), (1, 0)):
        assert torch.equal(kernel[w * 2 + h], dense[:, :, h, w].T)
    kernel = state['stages.0.0.dwconv.kernel']
    dense = source.stages[0][0].dwconv.weight
    assert torch.equal(kernel[2 * 7 + 5], dense[:, 0, 5, 2])


@pytest.mark.parametrize('shape', [(-1,), (1, -1), (1, 1, 1, -1)])
def test_grn_loads_in_any_published_shape(shape: tuple) -> None:
    source, target = randomise(backbone(2)), backbone(2)
    state = {
        key: value.reshape(shape) if '.grn.' in key else value
        for key, value in source.state_dict().items()
    }
    load(target, state)
    assert same(source.state_dict(), target.state_dict())


# --- nothing loads that does not add up --------------------------------------


def assert_refused(model: nn.Module, state, match: str = '', **kwargs) -> str:
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=match) as caught:
        load(model, state, **kwargs)
    assert same(before, model.state_dict())
    return str(caught.value)


@pytest.mark.parametrize('name, version', CASES)
def test_each_missing_or_renamed_key_raises(name: str, version: int) -> None:
    state = spell(randomise(backbone(version)), name)
    target = backbone(version)
    before = snapshot(target)
    for key in state:
        rest = {k: v for k, v in state.items() if k != key}
        for damaged in (rest, {**rest, key + 'x': state[key]}):
            with pytest.raises(CheckpointError):
                load(target, damaged)
    assert same(before, target.state_dict())


@pytest.mark.parametrize('name, version', CASES)
def test_each_transposed_kernel_raises(name: str, version: int) -> None:
    state = spell(randomise(backbone(version)), name)
    target = backbone(version)
    before, tried = snapshot(target), 0
    for key, value in state.items():
        turned = value.transpose(0, 1) if value.dim() > 1 else value
        if turned.shape != value.shape:
            tried += 1
            with pytest.raises(CheckpointError, match=re.escape(key)):
                load(target, {**state, key: turned})
    assert tried > 20 and same(before, target.state_dict())


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


def test_arch_is_named() -> None:
    state = spell(randomise(MODELS[1]('atto')), 'official')
    assert detect(state).arch == 'atto'
    assert_refused(backbone(1), state, r'this is atto \(depths 2 2 6 2')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_raise(value: float) -> None:
    state = backbone(1).state_dict()
    state['stages.2.1.pwconv1.bias'][3] = value
    assert_refused(backbone(1), state, 'stages.2.1.pwconv1.bias.*infinite')


def test_wrong_kinds_of_tensor_raise() -> None:
    state = backbone(1).state_dict()
    key = 'stages.2.1.pwconv1.weight'
    for bad in (
        state[key].int(),
        state[key].to_sparse(),
        state[key].to('meta'),
    ):
        assert_refused(backbone(1), {**state, key: bad}, re.escape(key))


def test_half_precision_loads_in_the_type_of_the_model() -> None:
    state = {
        k: v.half() for k, v in randomise(backbone(1)).state_dict().items()
    }
    target = backbone(1)
    load(target, state)
    assert target.stages[0][0].pwconv1.weight.dtype == torch.float32
    assert torch.equal(target.norm0.weight.half(), state['norm0.weight'])


def test_forged_block_index_raises_at_once() -> None:
    state = backbone(1).state_dict()
    state['stages.0.999999999999.norm.bias'] = torch.zeros(8)
    assert_refused(backbone(1), state, 'blocks of stages.0')


@pytest.mark.parametrize(
    'state', [{}, {'model': {}}, {'a': 1}, {'x': torch.ones(2)}]
)
def test_no_convnext_lists_what_was_looked_for(state: dict) -> None:
    text = assert_refused(backbone(1), state, 'no ConvNeXt found')
    assert all(row.anchor in text for row in FORMATS.values())
    assert 'First keys: ' in text


def test_a_cycle_of_dicts_is_walked_once() -> None:
    state: dict = {'model': backbone(1).state_dict()}
    state['model']['again'] = state
    assert detect(state).prefix == 'model.'


BLOCK = 'stages.0.blocks.0.'
RELATIVES = {
    'isotropic': ('stem.weight', 'blocks.0.dwconv.weight'),
    'overlap': (
        'stem.0.weight',
        'stem.2.weight',
        BLOCK + 'conv_dw.weight',
        BLOCK + 'norm.bias',
    ),
    'RMS': ('stem.0.weight', BLOCK + 'conv_dw.weight', BLOCK + 'norm.weight'),
    'EdgeNeXt': (
        'stem.0.weight',
        BLOCK + 'conv_dw.weight',
        BLOCK + 'norm.bias',
        'stages.1.blocks.2.xca.temperature',
    ),
}


@pytest.mark.parametrize('what', RELATIVES)
def test_relatives_are_refused_by_name(what: str) -> None:
    state = {key: torch.zeros(4) for key in RELATIVES[what]}
    assert_refused(backbone(1), state, what)


@pytest.mark.parametrize(
    'name, what',
    [
        ('edgenext_xx_small', 'EdgeNeXt'),
        ('convnext_atto_ols', 'overlap'),
        ('convnext_femto_ols', 'overlap'),
        ('convnext_nano_ols', 'overlap'),
        ('convnext_zepto_rms', 'RMS'),
        ('convnext_zepto_rms_ols', 'overlap|RMS'),
        ('convnext_atto_rms', 'RMS'),
        ('inception_next_atto', 'no ConvNeXt'),
        ('convformer_s18', 'no ConvNeXt'),
        ('swin_tiny_patch4_window7_224', 'no ConvNeXt'),
        ('regnetx_002', 'no ConvNeXt'),
        ('mobilenetv4_conv_small_035', 'no ConvNeXt'),
    ],
)
def test_relatives_of_timm_are_refused(name: str, what: str) -> None:
    model = import_zoo('timm').create_model(name, num_classes=0)
    assert_refused(backbone(1), model.state_dict(), what)


# --- wrappers, copies, parts -------------------------------------------------


def wrap(state: dict, *names: str) -> dict:
    for name in reversed(names):
        if name.endswith('.'):
            state = {name + key: value for key, value in state.items()}
        else:
            state = {name: state, 'epoch': 3}
    return state


@pytest.mark.parametrize(
    'names',
    [
        ('model',),
        ('state_dict', 'backbone.'),
        ('module', 'sparse_encoder.sp_cnn.'),
        ('model', 'module.', '_orig_mod.'),
        ('state_dict', '_orig_mod.', 'module.', 'backbone.'),
        ('a', 'b', 'c', 'detector.backbone._orig_mod.'),
        ('state_dict', 'teacher.backbone.'),
    ],
)
def test_wrappers_in_any_nesting(names: tuple) -> None:
    source, target = randomise(backbone(2)), backbone(2)
    state = wrap(source.state_dict(), *names)
    account = load(target, state)
    assert same(source.state_dict(), target.state_dict())
    assert account.found.prefix.startswith(names[0])


@pytest.mark.parametrize(
    'plain, ema',
    [
        (('model',), ('model_ema',)),
        (('state_dict',), ('state_dict_ema', 'module.')),
        (('state_dict', 'backbone.'), ('ema_state_dict', 'module.backbone.')),
    ],
)
def test_ema_weights_only_when_asked(plain: tuple, ema: tuple) -> None:
    one, two = (randomise(backbone(1)) for _ in range(2))
    state = {
        **wrap(one.state_dict(), *plain),
        **wrap(two.state_dict(), *ema),
    }
    for flag, source in ((False, one), (True, two)):
        target = backbone(1)
        load(target, state, ema=flag)
        assert same(source.state_dict(), target.state_dict())
    assert_refused(
        backbone(1), wrap(one.state_dict(), 'model'), 'EMA', ema=True
    )
    assert_refused(backbone(1), wrap(one.state_dict(), 'model_ema'), 'ema=')


def test_mmengine_swaps_the_average_on_saving() -> None:
    raw, average = (randomise(backbone(1)) for _ in range(2))
    state = {
        'state_dict': wrap(average.state_dict(), 'backbone.'),
        'ema_state_dict': {
            **wrap(raw.state_dict(), 'module.backbone.'),
            'steps': torch.tensor(4),
        },
    }
    target = backbone(1)
    load(target, state)
    assert same(raw.state_dict(), target.state_dict())
    load(target, state, ema=True)
    assert same(average.state_dict(), target.state_dict())


def test_two_copies_ask_for_a_prefix() -> None:
    one, two = (randomise(backbone(1)) for _ in range(2))
    state = {
        'state_dict': {
            **wrap(one.state_dict(), 'teacher.backbone.'),
            **wrap(two.state_dict(), 'student.backbone.'),
        }
    }
    text = assert_refused(backbone(1), state, 'prefix=')
    assert 'teacher.backbone' in text and 'student.backbone' in text
    for prefix in ('student', 'student.', 'student.backbone.'):
        target = backbone(1)
        load(target, state, prefix=prefix)
        assert same(two.state_dict(), target.state_dict())
    assert_refused(backbone(1), state, "'nobody'", prefix='nobody')


def test_a_detector_gives_its_backbone_and_says_so() -> None:
    source, target = randomise(backbone(1)), backbone(1)
    state = wrap(source.state_dict(), 'backbone.')
    state['neck.convs.0.weight'] = torch.zeros(3)
    account = load(target, {'state_dict': state, 'meta': {'epoch': 1}})
    assert same(source.state_dict(), target.state_dict())
    assert list(account.dropped) == ['state_dict.neck.convs.0.weight']
    assert "(neck): outside 'state_dict.backbone.'" in str(account)


@pytest.mark.parametrize(
    'extra, licence',
    [
        ('norms.3.weight', 'DINOv3'),
        ('projectors.0.weight', 'EUPE'),
        ('mask_token', 'not told'),
        ('fc.weight', 'not told'),
        ('head.fc.weight', 'not told'),
    ],
)
def test_known_extras_are_dropped_with_a_reason(
    extra: str, licence: str
) -> None:
    state = {**backbone(1).state_dict(), extra: torch.zeros(4)}
    account = load(backbone(1), state)
    assert account.dropped[extra] and licence in str(account)
    assert_refused(backbone(1), {**state, 'nose.weight': torch.zeros(1)})


def test_licence_is_said_where_format_or_name_tells(tmp_path) -> None:
    state = spell(randomise(backbone(2)), 'timm')
    assert 'CC BY-NC' in str(load(backbone(2), state))
    state = spell(randomise(backbone(1)), 'timm')
    for name, licence in (
        ('convnext_tiny.dinov3_lvd1689m.bin', 'DINOv3'),
        ('convnext_tiny.eupe_lvd1689m.bin', 'EUPE'),
        ('convnext_tiny.fb_in1k.bin', 'not told'),
    ):
        path = save(tmp_path, state, name)
        assert licence in str(load(backbone(1), path))


def test_pretrain_only_is_told_from_classifiers() -> None:
    state = {
        key: value
        for key, value in randomise(backbone(2)).state_dict().items()
        if not key.startswith('norm')
    }
    assert detect(state).pretrain_only
    assert detect(
        wrap(spell(backbone(2), 'minkowski'), 'encoder.')
    ).pretrain_only
    head = {f'norm.{p}': torch.ones(32) for p in ('weight', 'bias')}
    assert not detect({**state, **head}).pretrain_only
    assert not detect(backbone(2).state_dict()).pretrain_only


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


# --- the real libraries ------------------------------------------------------


def timm_case(image, version: int, **kwargs):
    timm = import_zoo('timm.models.convnext')
    scale = None if version == 2 else 1.0
    model = timm.ConvNeXt(
        depths=DEPTHS,
        dims=DIMS,
        use_grn=version == 2,
        ls_init_value=scale,
        num_classes=7,
        **kwargs,
    )
    randomise(model)
    return model.state_dict(), model.forward_intermediates(
        image, intermediates_only=True
    )


def timm_clip(image, version: int):
    state, features = timm_case(image, 1, head_hidden_size=12)
    state = wrap(state, 'module.visual.trunk.')
    state['module.visual.head.proj.weight'] = torch.zeros(3)
    state['module.text.positional_embedding'] = torch.zeros(3)
    return state, features


def timm_features(image, version: int):
    timm = import_zoo('timm')
    name = {1: 'convnext_atto', 2: 'convnextv2_atto'}[version]
    model = timm.create_model(
        name, features_only=True, depths=DEPTHS, dims=DIMS
    )
    randomise(model)
    return model.state_dict(), model(image)


def hf_config(version: int):
    library = import_zoo('transformers')
    kind = {1: library.ConvNextConfig, 2: library.ConvNextV2Config}[version]
    return kind(
        depths=list(DEPTHS),
        hidden_sizes=list(DIMS),
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
        num_labels=7,
    )


def hf_case(image, version: int, kind: str = 'Model'):
    library = import_zoo('transformers')
    stem = {1: 'ConvNext', 2: 'ConvNextV2'}[version]
    model = randomise(getattr(library, stem + kind)(hf_config(version)))
    output = model(image, output_hidden_states=True)
    # The first is the stem's; a Backbone counts its stages alike.
    return model.state_dict(), list(output.hidden_states[1:])


def hf_dinov3(image, version: int, kind: str = 'Model'):
    library = import_zoo('transformers')
    config = library.DINOv3ConvNextConfig(
        depths=list(DEPTHS),
        hidden_sizes=list(DIMS),
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )
    model = randomise(getattr(library, 'DINOv3ConvNext' + kind)(config))
    output = model(image, output_hidden_states=True)
    return model.state_dict(), list(output.hidden_states[-4:])


def tv_case(image, version: int):
    tv = import_zoo('torchvision.models.convnext')
    rows = [
        tv.CNBlockConfig(dim, out, depth)
        for dim, out, depth in zip(DIMS, (*DIMS[1:], None), DEPTHS)
    ]
    model = randomise(tv.ConvNeXt(rows, num_classes=7))
    features, x = [], image
    for n, layer in enumerate(model.features):
        x = layer(x)
        features += [x] if n % 2 else []
    return model.state_dict(), features


def mmpretrain_case(image, version: int, linear: bool = True):
    import_zoo('mmpretrain')
    name = 'mmpretrain.models.multimodal'
    sys.modules.setdefault(name, ModuleType(name))
    library = import_zoo('mmpretrain.models.backbones.convnext')
    model = library.ConvNeXt(
        dict(depths=list(DEPTHS), channels=list(DIMS)),
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        linear_pw_conv=linear,
        use_grn=version == 2,
        layer_scale_init_value=0.0 if version == 2 else 1.0,
    )
    randomise(model)
    features, x = [], image
    for down, stage in zip(model.downsample_layers, model.stages):
        x = stage(down(x))
        features.append(x)
    return wrap(model.state_dict(), 'state_dict', 'backbone.'), features


LIBRARIES = {
    'timm V1': (timm_case, 1, {}),
    'timm V1 conv_mlp': (timm_case, 1, dict(conv_mlp=True)),
    'timm V1 head norm first': (timm_case, 1, dict(head_norm_first=True)),
    'timm V2': (timm_case, 2, {}),
    'timm V2 conv_mlp': (timm_case, 2, dict(conv_mlp=True)),
    'timm V1 features_only': (timm_features, 1, {}),
    'timm V2 features_only': (timm_features, 2, {}),
    'OpenCLIP trunk': (timm_clip, 1, {}),
    'transformers V1': (hf_case, 1, {}),
    'transformers V1 classifier': (
        hf_case,
        1,
        dict(kind='ForImageClassification'),
    ),
    'transformers V1 backbone': (hf_case, 1, dict(kind='Backbone')),
    'transformers V2': (hf_case, 2, {}),
    'transformers V2 classifier': (
        hf_case,
        2,
        dict(kind='ForImageClassification'),
    ),
    'transformers V2 backbone': (hf_case, 2, dict(kind='Backbone')),
    'transformers DINOv3': (hf_dinov3, 1, {}),
    'transformers DINOv3 backbone': (hf_dinov3, 1, dict(kind='Backbone')),
    'torchvision': (tv_case, 1, {}),
    'mmpretrain V1': (mmpretrain_case, 1, {}),
    'mmpretrain V1 conv': (mmpretrain_case, 1, dict(linear=False)),
    'mmpretrain V2': (mmpretrain_case, 2, {}),
    'mmpretrain V2 conv': (mmpretrain_case, 2, dict(linear=False)),
}


@pytest.mark.parametrize('case', LIBRARIES)
@torch.no_grad()
def test_features_equal_the_library(case: str, image) -> None:
    build, version, kwargs = LIBRARIES[case]
    state, features = build(image, version, **kwargs)
    target = backbone(version)
    load(target, state)
    worst = assert_close(stage_features(target, image), list(features))
    print(f'{case}: {worst:.1e}')


# --- export ------------------------------------------------------------------


@pytest.mark.parametrize('name, version', EXPORT_CASES)
def test_round_trip_is_bit_identical(name: str, version: int) -> None:
    source, target = randomise(backbone(version)), backbone(version)
    state = export(source, name)
    lost = 'norm{i}.{p}' not in EXPORTS[name].names
    load(target, state, final_norm=lost)
    # timm has a place for the last norm only.
    but = r'norm[0-2]\.' if lost else '^$'
    assert same(source.state_dict(), target.state_dict(), but)
    again = export(target, name)
    assert same(state, again)


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


@pytest.mark.parametrize('version', (1, 2))
@pytest.mark.parametrize('arch', ('atto', None))
@torch.no_grad()
def test_timm_loads_the_export(version: int, arch, image) -> None:
    timm = import_zoo('timm')
    source = randomise(backbone(version, arch=arch or ARCH))
    name = ('convnext_atto', 'convnextv2_atto')[version - 1]
    sizes = {} if arch else dict(depths=DEPTHS, dims=DIMS, conv_mlp=False)
    model = timm.create_model(name, num_classes=0, **sizes).eval()
    model.load_state_dict(export(source, 'timm'), strict=True)
    features = model.forward_intermediates(image, intermediates_only=True)
    assert_close(stage_features(source, image), features)


@pytest.mark.parametrize('version', (1, 2))
@torch.no_grad()
def test_transformers_loads_the_export(version: int, image) -> None:
    library = import_zoo('transformers')
    source = randomise(backbone(version))
    kind = ('ConvNextBackbone', 'ConvNextV2Backbone')[version - 1]
    model = getattr(library, kind)(hf_config(version)).eval()
    model.load_state_dict(export(source, 'transformers'), strict=True)
    assert_close(list(source(image)), list(model(image).feature_maps))


@pytest.mark.parametrize('name', EXPORTS)
def test_archs_of_the_table_are_written_as_timm_builds_them(name: str) -> None:
    state = export(MODELS[1]('atto'), name)
    dims = {v.dim() for k, v in state.items() if 'fc1.weight' in k}
    assert dims == ({4} if name == 'timm' else set())
    assert from_ours(EXPORTS[name], state)


# --- files -------------------------------------------------------------------


def save(tmp_path, state, name: str = 'a.pth', **kwargs) -> str:
    path = str(tmp_path / name)
    torch.save(state, path, **kwargs)
    return path


class Intruder:
    """A pickle of it calls ``os.mkdir`` when it is read without care."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('names', [True, False])
def test_nothing_in_a_file_runs(
    tmp_path, monkeypatch, zipped: bool, names: bool
) -> None:
    # Without names: the path for torch before 2.6.
    monkeypatch.setattr(
        weights_io,
        'TORCH_TAKES_NAMES',
        names and weights_io.TORCH_TAKES_NAMES,
    )
    trace = str(tmp_path / 'trace')
    state = {**backbone(1).state_dict(), 'x': Intruder(trace)}
    path = save(tmp_path, state, _use_new_zipfile_serialization=zipped)
    assert_refused(backbone(1), path, r'mkdir.*refused')
    assert not os.path.exists(trace)
    with open(path, 'rb') as file:
        torch.load(file, weights_only=False)
    assert os.path.exists(trace), 'the intruder itself does not work'


def test_getattr_reaches_the_statistics_only(tmp_path) -> None:
    class Reach:
        def __reduce__(self):
            return getattr, (np.ndarray, 'tofile')

    path = save(tmp_path, {'x': Reach()})
    assert_refused(backbone(1), path, "'tofile' is refused")


@pytest.mark.parametrize('names', [True, False])
@pytest.mark.parametrize('zipped', [True, False])
def test_what_trainers_store_is_read(
    tmp_path, monkeypatch, zipped: bool, names: bool
) -> None:
    monkeypatch.setattr(
        weights_io,
        'TORCH_TAKES_NAMES',
        names and weights_io.TORCH_TAKES_NAMES,
    )
    source, target = randomise(backbone(2)), backbone(2)
    state = {
        'model': source.state_dict(),
        'args': argparse.Namespace(lr=0.1, size=(1, 2)),
        'best': np.float64(1.5),
        'curve': np.arange(3.0, dtype=np.float32),
        'buffer': HistoryBuffer([1.0, 3.0], [1, 1]),
        'module': nn.Parameter(torch.ones(2)),
    }
    path = save(tmp_path, state, _use_new_zipfile_serialization=zipped)
    load(target, path)
    assert same(source.state_dict(), target.state_dict())
    back = weights_io.read(path)
    assert back['args'].lr == 0.1 and back['best'] == 1.5
    assert back['buffer'].mean() == 2.0


def write_bytes(tmp_path, data: bytes, name: str = 'a.pth') -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def torch_bytes(state, **kwargs) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **kwargs)
    return buffer.getvalue()


def test_files_that_are_none(tmp_path) -> None:
    target = backbone(1)
    whole = torch_bytes(backbone(1).state_dict())
    old = torch_bytes(
        backbone(1).state_dict(), _use_new_zipfile_serialization=False
    )
    page = b'<!DOCTYPE html><html>' + b'not found ' * 500
    for data, match in (
        (whole[: len(whole) // 2], 'truncated'),
        (old[:-10], 'truncated'),
        (b'', 'an empty file'),
        (page, 'HTML'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'no torch'),
    ):
        assert_refused(target, write_bytes(tmp_path, data), match)
    assert_refused(target, str(tmp_path), 'is a directory')
    assert_refused(target, str(tmp_path / 'b.pth'), 'does not exist')
    assert_refused(target, save(tmp_path, {}), 'no ConvNeXt found')
    assert_refused(target, save(tmp_path, [1, 2]), 'no ConvNeXt found')
    assert_refused(target, 'ftp://host/a.pth', 'ftp://')


def test_an_archive_that_inflates_is_refused(tmp_path) -> None:
    path = save(tmp_path, {'a': torch.zeros(1 << 20)})
    packed = str(tmp_path / 'packed.pth')
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert os.path.getsize(packed) < os.path.getsize(path) / 100
    assert_refused(backbone(1), packed, 'more than the file has')


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('size', [(1 << 40,), (5,), (2, 3)])
def test_a_tensor_larger_than_its_storage_is_refused(
    tmp_path, zipped: bool, size: tuple
) -> None:
    class Bomb:
        def __reduce__(self):
            storage = torch.ones(4).storage()
            stride = (1,) * len(size)
            args = (storage, 1, size, stride, False, {})
            return torch._utils._rebuild_tensor_v2, args

    path = save(tmp_path, {'a': Bomb()}, _use_new_zipfile_serialization=zipped)
    assert_refused(backbone(1), path, 'declares more than its storage')


def test_a_storage_larger_than_the_file_is_refused(tmp_path) -> None:
    data = torch_bytes({'a': torch.zeros(77)})
    # The number of elements stands in the pickle as BININT1.
    assert data.count(b'K\x4dt') == 1
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        entries = {e.filename: old.read(e) for e in old.infolist()}
    path = str(tmp_path / 'a.pth')
    with zipfile.ZipFile(path, 'w') as new:
        for name, content in entries.items():
            new.writestr(name, content.replace(b'K\x4dt', b'K\xfft'))
    assert_refused(backbone(1), path, 'more than the file')


def test_safetensors_and_shards(tmp_path) -> None:
    library = import_zoo('safetensors.torch')
    source = randomise(backbone(2))
    state = source.state_dict()
    path = str(tmp_path / 'a.safetensors')
    library.save_file(state, path)
    target = backbone(2)
    load(target, path)
    assert same(state, target.state_dict())
    names = list(state)
    index = {k: f'part{n % 2}.safetensors' for n, k in enumerate(names)}
    for part in set(index.values()):
        tensors = {k: state[k] for k in names if index[k] == part}
        library.save_file(tensors, str(tmp_path / part))
    where = tmp_path / 'model.safetensors.index.json'
    where.write_text(json.dumps({'weight_map': index}))
    target = backbone(2)
    load(target, str(where))
    assert same(state, target.state_dict())
    where.write_text(
        json.dumps({'weight_map': {**index, 'gone': 'part0.safetensors'}})
    )
    assert_refused(backbone(2), str(where), 'differ in 1 keys: gone')
    where.write_text(json.dumps({'weight_map': {'a': '../a.safetensors'}}))
    assert_refused(backbone(2), str(where), 'not beside its index')


@pytest.mark.parametrize(
    'source, package',
    [
        ('{}/a.safetensors', 'safetensors'),
        ('hf-hub://owner/name', 'huggingface_hub'),
        ('timm://convnext_tiny.fb_in1k', 'timm'),
    ],
)
def test_a_library_that_is_absent_is_named(
    tmp_path, monkeypatch, source: str, package: str
) -> None:
    import sys

    for module in (package, f'{package}.torch'):
        monkeypatch.setitem(sys.modules, module, None)
    write_bytes(tmp_path, b'1' * 99, 'a.safetensors')
    source = source.format(tmp_path)
    assert_refused(backbone(1), source, f'pip install {package}')


class Answer(io.BytesIO):
    def __init__(self, data: bytes, length: int) -> None:
        super().__init__(data)
        self.headers = {'Content-Length': str(length)}


def test_downloads_are_kept_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    source = randomise(backbone(1))
    data = torch_bytes(source.state_dict())
    calls = []
    answers = {'body': data, 'length': len(data)}

    def urlopen(url, timeout):
        calls.append(url)
        return Answer(answers['body'], answers['length'])

    monkeypatch.setattr(weights_io.urllib.request, 'urlopen', urlopen)
    monkeypatch.setattr(weights_io, 'cache_dir', lambda: tmp_path / 'cache')
    url = 'https://host/dir/convnext.pth?x=1'
    target = backbone(1)
    answers['body'] = data[:-5]
    assert_refused(target, url, f'got {len(data) - 5} of {len(data)} bytes')
    answers['body'] = data
    assert_refused(target, url, 'sha256', sha256='0' * 64)
    assert not list((tmp_path / 'cache').iterdir())
    right = hashlib.sha256(data).hexdigest()
    load(target, url, sha256=right)
    assert same(source.state_dict(), target.state_dict())
    assert len(calls) == 3 and len(list((tmp_path / 'cache').iterdir())) == 1
    load(target, url, sha256=right[:8])
    assert len(calls) == 3
    assert_refused(target, url, 'sha256', sha256=right[:7])
    assert_refused(target, url, 'sha256', sha256='0' * 8)


def test_hubs_are_asked_for_known_files(tmp_path, monkeypatch) -> None:
    source = randomise(backbone(1))
    path = save(tmp_path, spell(source, 'timm'), 'pytorch_model.bin')
    asked = []
    hub = SimpleNamespace(
        list_repo_files=lambda repo: ['README.md', 'pytorch_model.bin'],
        hf_hub_download=lambda *args: asked.append(args) or path,
    )
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    cfg = SimpleNamespace(hf_hub_id='timm/convnext_x.in1k', url='')
    timm = SimpleNamespace(get_pretrained_cfg=lambda name: cfg)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    for name in ('hf-hub://owner/name', 'timm://convnext_x.in1k'):
        load(backbone(1), name)
    assert asked == [
        ('owner/name', 'pytorch_model.bin'),
        ('timm/convnext_x.in1k', 'pytorch_model.bin'),
    ]
    assert_refused(backbone(1), 'hf-hub://name', 'no hf-hub://owner/name')
    hub.list_repo_files = lambda repo: ['README.md']
    assert_refused(backbone(1), 'hf-hub://owner/name', 'none of model.safe')


def corrupt(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return data[: rng.randrange(len(data))]
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def fuzz_bytes(kind: str) -> bytes:
    arch = dict(depths=(1, 1, 1, 1), dims=(2, 2, 2, 2))
    state = randomise(ConvNeXtV2(arch, out_indices=(0,))).state_dict()
    if kind == 'safetensors':
        return import_zoo('safetensors.torch').save(state)
    return torch_bytes(
        {'state_dict': state, 'n': np.float64(1)},
        _use_new_zipfile_serialization=kind == 'zip',
    )


FUZZ_NAMES = {
    'zip': 'a.pth',
    'legacy': 'a.pth',
    'safetensors': 'a.safetensors',
}
FUZZ = {'zip': 700, 'legacy': 700, 'safetensors': 700}


@pytest.mark.parametrize('kind', FUZZ)
def test_corrupted_files_end_in_one_error(tmp_path, kind: str) -> None:
    """A file without a checksum may still load, with other numbers."""
    data, rng = fuzz_bytes(kind), random.Random(0)
    arch = dict(depths=(1, 1, 1, 1), dims=(2, 2, 2, 2))
    target = randomise(ConvNeXtV2(arch, out_indices=(0,)))
    before, loads = snapshot(target), 0
    clean = copy.deepcopy(target)
    load(clean, write_bytes(tmp_path, data, FUZZ_NAMES[kind]))
    name = FUZZ_NAMES[kind]
    for _ in range(FUZZ[kind]):
        path = write_bytes(tmp_path, corrupt(data, rng), name)
        try:
            account = load(target, path)
        except CheckpointError:
            assert same(before, target.state_dict())
            continue
        loads += 1
        assert set(account.loaded) | set(account.absent) == set(before)
        # Archives carry checksums, the other two do not.
        if kind == 'zip':
            assert same(clean.state_dict(), target.state_dict())
        target.load_state_dict(before)
    print(f'{kind}: {loads} of {FUZZ[kind]} still load')
    assert loads < FUZZ[kind]


# --- mmengine ----------------------------------------------------------------


@pytest.fixture
def safe_loading(monkeypatch) -> None:
    from mmengine.runner import checkpoint as engine

    loader = engine.CheckpointLoader
    monkeypatch.setattr(loader, '_schemes', loader._schemes.copy())
    monkeypatch.setattr(engine, 'load_from_http', engine.load_from_http)
    monkeypatch.setattr(engine, '_safe_torch_load', None, raising=False)
    checkpoint.install_safe_loading()


def pretrained(path: str, **kwargs) -> dict:
    return dict(type='Pretrained', checkpoint=path, **kwargs)


def test_init_cfg_loads_once_after_all_others(tmp_path, monkeypatch) -> None:
    calls = []
    original = checkpoint.load
    monkeypatch.setattr(
        checkpoint,
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


def import_or_none(name: str) -> None:
    with contextlib.suppress(pytest.skip.Exception):
        import_zoo(name)


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
    from mmengine.runner import checkpoint as engine

    asked = []
    monkeypatch.setattr(
        weights_io, 'read', lambda source, **kwargs: asked.append(source)
    )
    for source in ('open-mmlab://resnet50_v1c', 'http://host/a.pth'):
        engine.CheckpointLoader.load_checkpoint(source)
    assert len(asked) == 2 and asked[0].startswith('https://')


# --- whole detectors, and the tool -------------------------------------------

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


def tool():
    path = os.path.join(
        os.path.dirname(__file__), '../tools/convert_checkpoint.py'
    )
    spec = importlib.util.spec_from_file_location('convert_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKED = {'timm': 'timm', 'transformers': 'transformers'}


@pytest.mark.parametrize('name, version', EXPORT_CASES)
def test_the_tool_converts_and_checks(
    tmp_path, capsys, name: str, version: int
) -> None:
    if name in CHECKED:
        import_zoo(CHECKED[name])
    source = randomise(backbone(version))
    path = save(tmp_path, wrap(source.state_dict(), 'state_dict', 'backbone.'))
    out = str(tmp_path / 'out.pth')
    tool().main([path, out, '--to', name, '--check'])
    text = capsys.readouterr().out
    assert f'written    {len(export(source, name))} tensors' in text
    assert 'features equal within' in text
    target = backbone(version)
    lost = 'norm{i}.{p}' not in EXPORTS[name].names
    load(target, out, final_norm=lost)
    but = r'norm[0-2]\.' if lost else '^$'
    assert same(source.state_dict(), target.state_dict(), but)


def test_the_check_of_the_tool_can_fail(tmp_path, monkeypatch) -> None:
    path = save(tmp_path, randomise(backbone(1)).state_dict())
    module, out = tool(), tmp_path / 'out.pth'
    real = module.BUILDERS['native']

    def wrong(found, state):
        state['stages.2.1.gamma'] = state['stages.2.1.gamma'] * 1.01
        return real(found, state)

    monkeypatch.setitem(module.BUILDERS, 'native', wrong)
    with pytest.raises(CheckpointError, match='features differ'):
        module.main([path, str(out), '--to', 'native', '--check'])
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.pth']


def test_the_tool_inspects_without_writing(tmp_path, capsys) -> None:
    state = spell(randomise(MODELS[2]('atto')), 'timm')
    path = save(tmp_path, state, 'x.pth')
    tool().main([path, '--inspect'])
    text = capsys.readouterr().out
    assert 'timm, ConvNeXt V2 atto (depths 2 2 6 2, dims 40' in text
    assert 'CC BY-NC' in text and len(list(tmp_path.iterdir())) == 1


def test_the_tool_keeps_a_whole_detector(tmp_path) -> None:
    state = wrap(randomise(backbone(1)).state_dict(), 'backbone.')
    state['decode_head.conv_seg.weight'] = torch.ones(3)
    meta = {'CLASSES': ('wall', 'sky'), 'PALETTE': [[1, 2, 3]], 'epoch': 7}
    path = save(tmp_path, {'state_dict': state, 'meta': meta})
    out = str(tmp_path / 'out.pth')
    tool().main([path, out, '--to', 'native', '--whole'])
    back = weights_io.read(out)
    assert same(back['state_dict'], state)
    names = back['meta']['dataset_meta']
    assert names == {'classes': ('wall', 'sky'), 'palette': [[1, 2, 3]]}


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    out = tmp_path / 'a.pth'
    weights_io.write({'a': torch.ones(2)}, out)

    def broken(state, path) -> None:
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(weights_io.torch, 'save', broken)
    with pytest.raises(OSError, match='disk full'):
        weights_io.write({'a': torch.zeros(2)}, out)
    assert torch.equal(weights_io.read(out)['a'], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']
    with pytest.raises(CheckpointError, match='must end in'):
        weights_io.write({}, tmp_path / 'a.onnx')
