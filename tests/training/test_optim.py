import pytest
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmconvnext import ARCHS, ConvNeXt, ConvNeXtV2
from mmconvnext.training.optim import (
    RULES,
    decays,
    default_num_layers,
    get_layer_id,
)

CONSTRUCTOR = 'mmconvnext.LayerDecayOptimWrapperConstructor'
SMALL = (8, 8, 8, 8)


class Segmentor(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))


def backbone(name: str = 'tiny', cls: type = ConvNeXtV2) -> nn.Module:
    """The depths of a published arch at a tiny width."""
    return cls(dict(depths=ARCHS[name].depths, dims=SMALL))


def groups(model: nn.Module, constructor: str = CONSTRUCTOR, **paramwise):
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor=constructor,
            paramwise_cfg=dict(decay_rate=0.7, **paramwise),
        ),
    )
    return wrapper.optimizer.param_groups


def by_name(param_groups: list) -> dict:
    """Map each parameter name to its (learning rate scale, weight decay)."""
    return {
        name: (pytest.approx(group['lr'] / 1e-3), group['weight_decay'])
        for group in param_groups
        for name in group['param_names']
    }


# Lowest to head, from the hosts' own constructor run on real models.
@pytest.mark.parametrize(
    ('decay_type', 'rate', 'arch', 'scales'),
    [
        (
            'layer_wise',
            0.7,
            'tiny',
            [0.0824, 0.1176, 0.1681, 0.2401, 0.343, 0.49, 0.7, 1],
        ),
        ('layer_wise', 0.95, 'tiny', [0.698]),
        ('layer_wise', 0.95, 'base', [0.513]),
        ('layer_wise', 0.7, 'base', [0.0097]),
        ('layer_wise', 0.8, 'base', [0.055]),
        ('stage_wise', 0.9, 'tiny', [0.478, 0.531, 0.590, 0.656, 0.729, 1]),
        ('stage_wise', 0.9, 'base', [0.254, 0.282, 0.314, 0.349, 0.387, 1]),
    ],
)
def test_published_scales(
    decay_type: str, rate: float, arch: str, scales: list
) -> None:
    model = Segmentor(backbone(arch))
    found = set()
    for name, _ in model.named_parameters():
        layer, head = get_layer_id(
            name.replace('backbone.', ''), ARCHS[arch].depths, decay_type
        )
        found.add(rate ** (head - layer))
    for value, expected in zip(sorted(found), scales):
        assert value == pytest.approx(expected, abs=6e-4)
    if len(scales) > 1:
        assert len(found) == len(scales)


@pytest.mark.parametrize('arch', ['tiny', 'base'])
@pytest.mark.parametrize('decay_type', ['layer_wise', 'stage_wise'])
@pytest.mark.parametrize('cls', [ConvNeXt, ConvNeXtV2])
def test_equals_the_hosts_constructor(
    cls: type, decay_type: str, arch: str
) -> None:
    model = Segmentor(backbone(arch, cls))
    ours = groups(model, decay_type=decay_type)
    theirs = groups(
        model,
        'mmseg.LearningRateDecayOptimizerConstructor',
        decay_type=decay_type,
        num_layers=6 if arch == 'tiny' else 12,
    )
    assert by_name(ours) == by_name(theirs)


@pytest.mark.parametrize('arch', ('tiny', 'base'))
def test_group_is_the_rule_of_the_classifiers(arch: str) -> None:
    """Twelve groups and the head, with gaps in tiny's third stage."""
    depths = ARCHS[arch].depths
    expected = {
        'downsample_layers.0.1.weight': 0,
        'stages.0.2.norm.bias': 1,
        'downsample_layers.1.0.weight': 2,
        'stages.1.0.pwconv1.weight': 2,
        'downsample_layers.2.1.weight': 3,
        'stages.2.2.grn.beta': 3,
        'stages.2.3.gamma': 4,
        f'stages.2.{depths[2] - 1}.dwconv.bias': {'tiny': 5, 'base': 11}[arch],
        'downsample_layers.3.0.bias': 12,
        'stages.3.0.dwconv.weight': 12,
        'norm3.weight': 13,
    }
    for name, layer in expected.items():
        assert get_layer_id(name, depths, 'group', 6) == (layer, 13)


def test_single_is_the_rule_of_the_v2_authors() -> None:
    depths = ARCHS['atto'].depths  # 2 2 6 2
    expected = {
        'downsample_layers.0.0.weight': 1,
        'stages.0.0.dwconv.weight': 1,
        'stages.0.1.dwconv.weight': 2,
        'downsample_layers.1.0.weight': 3,
        'stages.2.5.grn.gamma': 10,
        'downsample_layers.3.1.bias': 11,
        'stages.3.1.norm.bias': 12,
        'norm3.weight': 13,
    }
    for name, layer in expected.items():
        assert get_layer_id(name, depths, 'single') == (layer, 13)


@pytest.mark.parametrize(
    ('arch', 'num'),
    [('tiny', 6), ('nano', 6), ('base', 12), ('atto', 5), ('xxlarge', 13)],
)
def test_layers_follow_the_depths(arch: str, num: int) -> None:
    depths = ARCHS[arch].depths
    assert default_num_layers(depths) == num
    used = {
        get_layer_id(f'stages.{i}.{j}.norm.weight', depths)[0]
        for i, depth in enumerate(depths)
        for j in range(depth)
    }
    assert used == set(range(1, num + 1))  # none skipped, none shared


@pytest.mark.parametrize(
    ('name', 'ndim', 'expected'),
    [
        ('backbone.stages.0.0.pwconv1.weight', 2, True),
        ('backbone.stages.0.0.dwconv.weight', 4, True),
        ('backbone.stages.0.0.grn.gamma', 4, False),
        ('backbone.stages.0.0.grn.beta', 1, False),
        ('backbone.stages.0.0.gamma', 3, False),
        ('backbone.stages.0.0.norm.weight', 4, False),
        ('backbone.norm3.weight', 1, False),
        ('backbone.stages.0.0.pwconv1.bias', 1, False),
        ('decode_head.conv_seg.weight', 4, True),
    ],
)
def test_decay_goes_by_name(name: str, ndim: int, expected: bool) -> None:
    assert decays(name, ndim) is expected


def test_every_trainable_parameter_once() -> None:
    model = Segmentor(backbone())
    model.backbone.frozen_stages = 2
    model.train()
    names = [n for g in groups(model) for n in g['param_names']]
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trainable)
    assert len(trainable) < len(list(model.parameters()))


def test_finds_backbones_anywhere() -> None:
    model = nn.ModuleDict(
        dict(
            teacher=Segmentor(backbone('base')),
            student=Segmentor(backbone('tiny')),
        )
    )
    scales = by_name(groups(model, decay_type='layer_wise'))
    name = 'backbone.downsample_layers.0.0.weight'
    assert scales[f'teacher.{name}'][0] == 0.7**13
    assert scales[f'student.{name}'][0] == 0.7**7
    assert scales['student.decode_head.0.weight'][0] == 1


def test_bare_backbone_needs_no_prefix() -> None:
    scales = by_name(groups(backbone()))
    assert scales['downsample_layers.0.0.weight'][0] == 0.7**7


@pytest.mark.parametrize('decay_type', RULES)
def test_output_norms(decay_type: str) -> None:
    model = Segmentor(backbone())
    head = by_name(groups(model, decay_type=decay_type))
    stage = by_name(groups(model, decay_type=decay_type, output_norms='stage'))
    for i, depth in enumerate(ARCHS['tiny'].depths):
        assert head[f'backbone.norm{i}.weight'][0] == 1
        last = f'backbone.stages.{i}.{depth - 1}.norm.weight'
        assert stage[f'backbone.norm{i}.weight'] == stage[last]


def test_custom_keys_multiply() -> None:
    keys = {
        'decode_head': dict(lr_mult=10.0),
        'decode_head.1': dict(lr_mult=2.0, decay_mult=3.0),
        'backbone.stages.3': dict(decay_mult=0.5),
    }
    found = by_name(groups(Segmentor(backbone()), custom_keys=keys))
    assert found['decode_head.0.weight'] == (10, 0.05)
    assert found['decode_head.1.weight'] == (2, 0.0)  # a norm never decays
    assert found['backbone.stages.3.0.pwconv1.weight'] == (0.7, 0.025)
    assert found['backbone.stages.3.0.grn.gamma'] == (0.7, 0.0)


def test_first_group_is_the_head() -> None:
    # mmengine logs the learning rate of the first group.
    first = groups(Segmentor(backbone()))[0]
    assert first['lr'] == 1e-3
    assert 'decode_head.0.bias' in first['param_names']


CUSTOM_KEYS = {
    'none': {},
    'the backbone': {'backbone': dict(lr_mult=0.1)},
    'its norms': {'norm': dict(lr_mult=0.01)},
    'part of the head': {'decode_head.0': dict(lr_mult=10.0)},
    'both': {
        'backbone': dict(lr_mult=0.1, decay_mult=0.5),
        'decode_head.1': dict(lr_mult=0.5),
    },
}


@pytest.mark.parametrize('decay_type', RULES)
@pytest.mark.parametrize('keys', CUSTOM_KEYS)
def test_the_logged_rate_is_the_head_s(keys: str, decay_type: str) -> None:
    cfg = dict(
        optimizer=dict(type='AdamW', lr=1e-3),
        constructor=CONSTRUCTOR,
        paramwise_cfg=dict(
            decay_rate=0.7,
            decay_type=decay_type,
            custom_keys=CUSTOM_KEYS[keys],
        ),
    )
    wrapper = build_optim_wrapper(Segmentor(backbone()), cfg)
    # What mmengine's RuntimeInfoHook logs.
    assert wrapper.get_lr()['lr'][0] == 1e-3
    first = wrapper.optimizer.param_groups[0]['param_names']
    assert any(name.startswith('decode_head') for name in first)


@pytest.mark.parametrize('rate', [0.7, 1.0])
@pytest.mark.parametrize('keys', CUSTOM_KEYS)
def test_names_of_groups_are_unique(keys: str, rate: float) -> None:
    model = nn.ModuleDict(
        dict(
            teacher=Segmentor(backbone('base')),
            student=Segmentor(backbone('tiny')),
        )
    )
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor=CONSTRUCTOR,
            paramwise_cfg=dict(decay_rate=rate, custom_keys=CUSTOM_KEYS[keys]),
        ),
    )
    names = [group['group_name'] for group in wrapper.optimizer.param_groups]
    assert len(set(names)) == len(names)
    assert 'layer_head_decay' in names


def test_logs_a_table(capsys) -> None:
    logger = MMLogger.get_instance('test_optim')
    groups(Segmentor(backbone()))
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert logger and 'layer_0_decay' in text
    assert 'layer_head_decay' in text
    assert 'weight decay' in text


@pytest.mark.parametrize(
    ('paramwise', 'match'),
    [
        (dict(decay_rate=0), 'decay_rate.*0'),
        (dict(decay_rate=None), 'decay_rate.*None'),
        (
            dict(decay_type='linear'),
            'layer_wise, stage_wise, single, group.*linear',
        ),
        (dict(output_norms='none'), 'head, stage.*none'),
        (dict(norm_decay_mult=0), 'norm_decay_mult.*allowed: decay_rate'),
    ],
)
def test_bad_options_raise(paramwise: dict, match: str) -> None:
    cfg = dict(
        optimizer=dict(type='AdamW', lr=1e-3),
        constructor=CONSTRUCTOR,
        paramwise_cfg={'decay_rate': 0.7, **paramwise},
    )
    with pytest.raises(ValueError, match=match):
        build_optim_wrapper(Segmentor(backbone()), cfg)


def test_model_without_convnext_raises() -> None:
    with pytest.raises(ValueError, match='no ConvNeXt backbone.*Linear'):
        groups(nn.Linear(2, 2))
