"""Groups of a fine-tuned classifier against the authors' rules, written out.

The rules are those of the authors' ``optim_factory``: layer numbers by name,
a rate for each number, and no decay for vectors, biases, gamma and beta.
"""

import re
from typing import Tuple

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from mmconvnext import ARCHS

RATE, DECAY = 1e-3, 0.05


def official_layer(name: str, kind: str, depths: Tuple[int, ...]) -> int:
    """Number a parameter of the authors' classifier; the head is last."""
    match = re.match(r'(downsample_layers|stages)\.(\d)\.(\d+)?', name)
    last = 13 if kind == 'group' else sum(depths) + 1
    if match is None:  # norm.* and head.*
        return last
    part, stage, block = match[1], int(match[2]), int(match[3])
    if kind == 'single':
        inside = block if part == 'stages' else 0
        return sum(depths[:stage]) + 1 + inside
    if part == 'downsample_layers':
        return {0: 0, 1: 2, 2: 3, 3: 12}[stage]
    return {0: 1, 1: 2, 2: 3 + block // 3, 3: 12}[stage]


def official_decay(name: str, parameter: nn.Parameter) -> float:
    spared = name.endswith(('.bias', '.gamma', '.beta'))
    return 0.0 if parameter.ndim == 1 or spared else DECAY


@pytest.mark.parametrize('arch', ['tiny', 'base'])
@pytest.mark.parametrize(('kind', 'rate'), [('single', 0.9), ('group', 0.6)])
def test_groups_are_the_authors(arch: str, kind: str, rate: float) -> None:
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmconvnext.ImageClassifier',
                backbone=dict(type='mmconvnext.ConvNeXtV2', arch=arch),
                num_classes=1000,
            )
        )
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=RATE, weight_decay=DECAY),
            constructor='mmconvnext.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=rate, decay_type=kind),
        ),
    )
    found = {
        name: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for name in group['param_names']
    }
    depths = ARCHS[arch].depths
    last = 13 if kind == 'group' else sum(depths) + 1
    for name, parameter in model.named_parameters():
        official = name.replace('backbone.', '')
        scale = rate ** (last - official_layer(official, kind, depths))
        expected = RATE * scale, official_decay(official, parameter)
        assert found.pop(name) == pytest.approx(expected), name
    assert not found


@pytest.mark.parametrize(('kind', 'count'), [('single', 37), ('group', 13)])
def test_there_are_as_many_rates_as_the_authors_have(
    kind: str, count: int
) -> None:
    """Base has 36 blocks, whose downsampling shares their first's rate."""
    depths = ARCHS['base'].depths
    names = [
        *(f'downsample_layers.{i}.0.weight' for i in range(4)),
        *(f'stages.{i}.{j}.gamma' for i in range(4) for j in range(depths[i])),
        'head.weight',
    ]
    layers = {official_layer(name, kind, depths) for name in names}
    assert len(layers) == count + (kind == 'group')
