"""Configs are read however they are written."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope

from mmconvnext.configs import (
    as_list,
    bare_type,
    enter_scope,
    host_of,
    leaves,
    steps_of,
)


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('EMAHook', 'EMAHook'),
        ('mmengine.EMAHook', 'EMAHook'),
        ('mmengine.hooks.ema_hook.EMAHook', 'EMAHook'),
        (EMAHook, 'EMAHook'),
        (dict(type='mmengine.EMAHook', momentum=0.1), 'EMAHook'),
        (dict(type=EMAHook), 'EMAHook'),
        (Config(dict(hook=dict(type='x.Y'))).hook, 'Y'),
        (dict(momentum=0.1), ''),
        (None, ''),
    ],
)
def test_a_type_has_one_bare_name(kind: object, name: str) -> None:
    assert bare_type(kind) == name


def test_the_host_follows_from_scope_or_model() -> None:
    from mmdet.models import RetinaNet
    from mmseg.models import EncoderDecoder

    for text, expected in (
        (dict(default_scope='mmseg', model=dict(type='RetinaNet')), 'mmseg'),
        (dict(default_scope=None, model=dict(type=RetinaNet)), 'mmdet'),
        (dict(model=dict(type=EncoderDecoder)), 'mmseg'),
        (dict(model=dict(type='mmdet.RetinaNet')), 'mmdet'),
        (dict(model=dict(type='RetinaNet')), ''),
        (dict(optimizer=1), ''),
    ):
        assert host_of(Config(text)) == expected
    enter_scope(Config(dict(model=dict(type=RetinaNet))))
    assert DefaultScope.get_current_instance().scope_name == 'mmdet'


def test_data_sets_are_found_inside_any_wrapper() -> None:
    a, b = dict(type='A'), dict(type='B')
    nested = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[a, dict(type='ClassBalancedDataset', dataset=b)],
        ),
    )
    assert list(leaves(nested)) == [a, b]
    for leaf in leaves(nested):
        leaf['pipeline'] = []
    assert a['pipeline'] == b['pipeline'] == []


def test_steps_are_found_inside_of_others() -> None:
    step = [dict(type=name) for name in 'abcd']
    augment = dict(type='TTA', transforms=[[step[1], step[2]], [step[3]]])
    found = [s['type'] for s in steps_of([step[0], augment])]
    assert found == ['a', 'TTA', 'b', 'c', 'd']
    assert list(steps_of(None)) == []
    assert as_list(None) == [] and as_list((1, 2)) == [1, 2]
    assert as_list(0) == [0]
