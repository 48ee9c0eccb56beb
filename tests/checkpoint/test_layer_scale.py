"""V1 without layer scale: what 0 means in the authors' code."""

import copy

import pytest
import torch
from backbones import MICRO
from checkpoints import (
    ARCH,
    CASES,
    assert_refused,
    backbone,
    randomise,
    same,
    spell,
)

from mmconvnext import ConvNeXt, ops
from mmconvnext.checkpoint import (
    EXPORTS,
    CheckpointError,
    build,
    detect,
    export,
    load,
)

# These have V1 without layer scale no other way than with it.
FORMATS = [name for name, version in CASES if version == 1]
FORMATS.remove('torchvision')  # found by its layer scale


def plain() -> ConvNeXt:
    return backbone(1, layer_scale_init_value=0)


def test_none_is_built() -> None:
    names = ConvNeXt(MICRO).state_dict()
    model = ConvNeXt(MICRO, layer_scale_init_value=0.0)
    expected = {k for k in names if not k.endswith('.gamma')}
    assert len(expected) == len(names) - sum(MICRO['depths'])
    assert set(model.state_dict()) == expected
    # Layer scale of 1 is none; 0 would make every block the identity.
    one = ConvNeXt(MICRO, layer_scale_init_value=1.0)
    one.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 40, 72)
    torch.testing.assert_close(model(x), one(x))


@pytest.mark.parametrize('path', ops.PATHS)
def test_every_path_of_the_ops(path: str) -> None:
    if ops.absent(path):
        pytest.skip(f'{path}: {ops.absent(path)}')
    model = randomise(ConvNeXt(MICRO, layer_scale_init_value=0)).train()
    x = torch.randn(2, 3, 61, 75)
    results = []
    for name in ('reference', path):
        twin = copy.deepcopy(model)
        with ops.use(name):
            outs = twin(x)
            sum(out.square().mean() for out in outs).backward()
        results.append((outs, [p.grad for p in twin.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', FORMATS)
def test_each_format_loads(name: str) -> None:
    source, target = randomise(plain()), plain()
    state = spell(source, name)
    account = load(target, state)
    assert 'without layer scale' in str(account)
    kept = r'norm\d\.' if 'norm{i}.{p}' not in state else '^$'
    assert same(source.state_dict(), target.state_dict(), kept)


@pytest.mark.parametrize('name', EXPORTS)
def test_each_export_comes_back(name: str) -> None:
    source, target = randomise(plain()), plain()
    state = export(source, name)
    assert not any('gamma' in key for key in state)
    load(target, state)
    assert same(source.state_dict(), target.state_dict(), r'norm\d\.')
    built = build(state, layer_scale_init_value=0)
    assert same(source.state_dict(), built.state_dict(), r'norm\d\.')


def test_nothing_else_takes_it() -> None:
    state = randomise(plain()).state_dict()
    assert_refused(backbone(2), state, 'lost its GRN')
    assert_refused(backbone(1), state, 'layer_scale_init_value=0')
    scaled = randomise(backbone(1)).state_dict()
    assert_refused(plain(), scaled, 'the file has a layer scale')
    assert_refused(plain(), randomise(backbone(2)).state_dict(), 'V2')
    # A file alone does not say which of the two it is.
    for function in (detect, build, lambda s: export(s, 'timm')):
        with pytest.raises(CheckpointError, match='neither'):
            function(state)


def test_negative_values_raise() -> None:
    with pytest.raises(ValueError, match=r'layer_scale_init_value.*-1'):
        ConvNeXt(ARCH, layer_scale_init_value=-1)
