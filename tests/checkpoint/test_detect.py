"""The one ConvNeXt in a file is found, whole, or the file is refused."""

from __future__ import annotations

import re

import pytest
import torch
from checkpoints import (
    CASES,
    MODELS,
    assert_refused,
    backbone,
    randomise,
    same,
    save,
    snapshot,
    spell,
    wrap,
)
from imports import import_zoo

from mmconvnext.checkpoint import CheckpointError, detect, load
from mmconvnext.checkpoint.formats import FORMATS


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


def test_arch_is_named() -> None:
    state = spell(randomise(MODELS[1]('atto')), 'official')
    assert detect(state).arch == 'atto'
    assert_refused(backbone(1), state, r'this is atto \(depths 2 2 6 2')


def test_wrong_kinds_of_tensor_raise() -> None:
    state = backbone(1).state_dict()
    key = 'stages.2.1.pwconv1.weight'
    for bad in (
        state[key].int(),
        state[key].to_sparse(),
        state[key].to('meta'),
    ):
        assert_refused(backbone(1), {**state, key: bad}, re.escape(key))


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
        ('mask_token', 'unknown'),
        ('fc.weight', 'unknown'),
        ('head.fc.weight', 'unknown'),
    ],
)
def test_known_extras_are_dropped_with_a_reason(
    extra: str, licence: str
) -> None:
    state = {**backbone(1).state_dict(), extra: torch.zeros(4)}
    account = load(backbone(1), state)
    assert account.dropped[extra] and licence in str(account)
    assert_refused(backbone(1), {**state, 'nose.weight': torch.zeros(1)})


def test_licence_is_logged_where_format_or_name_gives_it(tmp_path) -> None:
    state = spell(randomise(backbone(2)), 'timm')
    assert 'CC BY-NC' in str(load(backbone(2), state))
    state = spell(randomise(backbone(1)), 'timm')
    for name, licence in (
        ('convnext_tiny.dinov3_lvd1689m.bin', 'DINOv3'),
        ('convnext_tiny.eupe_lvd1689m.bin', 'EUPE'),
        ('convnext_tiny.fb_in1k.bin', 'unknown'),
    ):
        path = save(tmp_path, state, name)
        assert licence in str(load(backbone(1), path))


def test_pretrain_only_differs_from_classifiers() -> None:
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
