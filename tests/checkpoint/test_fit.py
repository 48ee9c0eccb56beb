"""Whether a whole model's file fits, and what is said where it does not."""

from __future__ import annotations

import functools
import re

import pytest
import tiny
import torch
from checkpoints import spell
from mmengine.model import BaseModel

from mmconvnext import ConvNeXt, ConvNeXtV2
from mmconvnext.checkpoint import CheckpointError, fit

DET = 'mask_rcnn_convnextv2_atto_demo.py'
SEG = 'upernet_convnextv2_atto_demo.py'


@functools.cache
def state(name: str) -> dict:
    return tiny.build(tiny.shrink(tiny.load(name))).state_dict()


def model(name: str, **changes) -> BaseModel:
    cfg = tiny.shrink(tiny.load(name))
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return tiny.build(cfg)


def backbone_in(name: str, kind: str) -> dict:
    """A whole model's tensors, its backbone named as another library does."""
    cfg = tiny.shrink(tiny.load(name)).model.backbone
    source = ConvNeXtV2(cfg.arch)
    source.load_state_dict(
        {
            key[len('backbone.') :]: value
            for key, value in state(name).items()
            if key.startswith('backbone.')
        }
    )
    # A fresh GRN is zero, as is one that was lost.
    for key, value in source.state_dict().items():
        if '.grn.' in key:
            value.fill_(0.1)
    rest = {k: v for k, v in state(name).items() if k[:8] != 'backbone'}
    spelt = spell(source, kind)
    return {**{f'backbone.{k}': v for k, v in spelt.items()}, **rest}


@pytest.mark.parametrize('name', [DET, SEG])
def test_a_file_of_the_model_fits(name: str) -> None:
    for raw in (
        state(name),
        dict(state_dict=state(name), meta={}),
        dict(state_dict={f'module.{k}': v for k, v in state(name).items()}),
    ):
        assert fit.require_whole(model(name), raw, 'x.pth') == []
        account = fit.require_backbone(model(name), raw, 'x.pth')
        total = sum(key.startswith('backbone.') for key in state(name))
        assert f'{total} of {total} tensors' in account


MISFITS = {
    'another host': (DET, lambda: state(SEG), 'has backbone, decode_head'),
    'a backbone alone': (
        SEG,
        lambda: spell(
            ConvNeXtV2(dict(depths=[1] * 4, dims=tiny.DIMS)), 'timm'
        ),
        r'without neck and heads \(timm, ConvNeXt V2.*init_cfg.checkpoint=x',
    ),
    'names of mmpretrain': (
        SEG,
        lambda: backbone_in(SEG, 'mmpretrain'),
        'convert_checkpoint.py x.pth OUT.pth --to native --whole',
    ),
    'nothing of ours': (DET, lambda: {'a.b': torch.ones(1)}, 'file has a, '),
    'no tensors': (DET, lambda: {'meta': {}}, 'file has no tensors'),
    'a deeper backbone': (
        SEG,
        lambda: {
            **state(SEG),
            'backbone.stages.2.1.dwconv.bias': torch.zeros(24),
        },
        r'1 tensors of the file are not in the model \(backbone.stages.2.1',
    ),
    'a lost tensor': (
        SEG,
        lambda: {k: v for k, v in state(SEG).items() if 'norm2.w' not in k},
        'backbone.norm2.weight',
    ),
    'other channels': (
        SEG,
        lambda: {
            **state(SEG),
            'decode_head.conv_seg.weight': torch.ones(6, 9),
        },
        r'conv_seg.weight: \[6, 9\] in the file, \[',
    ),
}


@pytest.mark.parametrize('what', MISFITS)
@pytest.mark.parametrize('check', ['require_whole', 'require_backbone'])
def test_what_does_not_fit_is_named_with_what_helps(
    what: str, check: str
) -> None:
    name, raw, message = MISFITS[what]
    with pytest.raises(CheckpointError, match='does not fit') as info:
        getattr(fit, check)(model(name), dict(state_dict=raw()), 'x.pth')
    assert info.match(message)


def test_v1_and_v2_are_told_apart() -> None:
    arch = dict(depths=[1] * 4, dims=tiny.DIMS)
    raw = {f'backbone.{k}': v for k, v in ConvNeXt(arch).state_dict().items()}
    with pytest.raises(CheckpointError, match='ConvNeXt V1'):
        fit.require_whole(model(SEG), raw, 'x.pth')


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        (
            SEG,
            dict(
                model__decode_head__num_classes=11,
                model__auxiliary_head__num_classes=11,
            ),
        ),
        (
            DET,
            dict(
                model__roi_head__bbox_head__num_classes=11,
                model__roi_head__mask_head__num_classes=11,
            ),
        ),
    ],
)
def test_other_classes_start_anew_in_training_only(
    name: str, changes: dict
) -> None:
    other = model(name, **changes)
    account = fit.require_backbone(other, state(name), 'x.pth')
    assert 'start anew' in account and 'for other classes: ' in account
    with pytest.raises(CheckpointError, match='have another shape'):
        fit.require_whole(other, state(name), 'x.pth')


def test_a_head_that_the_model_lacks_is_left_out_and_said() -> None:
    cases = {
        'auxiliary_head': model(SEG, model__auxiliary_head=None),
        'roi_head.mask_head': model(DET, model__roi_head__mask_head=None),
    }
    for head, other in cases.items():
        name = SEG if head == 'auxiliary_head' else DET
        lines = fit.require_whole(other, state(name), 'x.pth')
        assert lines == [f'x.pth: the model has no {head}, left out']
        account = fit.require_backbone(other, state(name), 'x.pth')
        assert re.search(f'left out +{head}', account)


def test_old_counts_of_batch_norm_may_be_absent() -> None:
    old = {k: v for k, v in state(SEG).items() if 'batches_tracked' not in k}
    assert len(old) < len(state(SEG))
    assert fit.require_whole(model(SEG), old, 'x.pth') == []


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.', 'net.'])
def test_prefixes_of_wrappers(prefix: str) -> None:
    """torch.compile and Lightning name tensors of a whole model so."""
    raw = dict(state_dict={f'{prefix}{k}': v for k, v in state(DET).items()})
    with pytest.raises(CheckpointError, match='--to native --whole'):
        fit.require_whole(model(DET), raw, 'x.pth')
    # Of another model: no words of a backbone alone.
    with pytest.raises(CheckpointError) as caught:
        fit.require_backbone(model(SEG), raw, 'x.pth')
    assert 'without neck and heads' not in str(caught.value)
