"""``checkpoint.build``: the right backbone for a file, with its weights."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from checkpoints import (
    ARCH,
    CASES,
    DEPTHS,
    DIMS,
    MODELS,
    assert_close,
    backbone,
    randomise,
    same,
    save,
    spell,
    stage_features,
)

from mmconvnext import checkpoint
from mmconvnext.checkpoint import CheckpointError


@pytest.mark.parametrize('name, version', CASES)
def test_any_format_becomes_the_backbone_it_is_of(
    tmp_path: Path, name: str, version: int
) -> None:
    source = randomise(backbone(version))
    path = save(tmp_path, spell(source, name))
    model = checkpoint.build(path, drop_path_rate=0.3)
    assert type(model) is MODELS[version]
    assert (model.depths, model.dims) == (DEPTHS, DIMS)
    assert (model.out_indices, model.drop_path_rate) == ((0, 1, 2, 3), 0.3)
    assert not model.training
    assert same(source.state_dict(), model.state_dict(), r'norm\d\.')
    image = torch.randn(1, 3, 64, 96)
    assert_close(stage_features(model, image), stage_features(source, image))


def test_published_sizes_go_by_name_and_in_memory(tmp_path: Path) -> None:
    source = randomise(MODELS[2]('atto'))
    for given in (source.state_dict(), save(tmp_path, source.state_dict())):
        model = checkpoint.build(given)
        assert model.arch == 'atto'
        assert same(source.state_dict(), model.state_dict())


def test_channels_and_stages_are_the_file_s_or_those_asked_for() -> None:
    state = randomise(
        backbone(1, in_channels=4, out_indices=(0, 2))
    ).state_dict()
    model = checkpoint.build(state)
    assert (model.in_channels, model.out_indices) == (4, (0, 1, 2))
    assert (model.depths, model.dims) == ((*DEPTHS[:3], 1), (*DIMS[:3], 1))
    assert model(torch.randn(1, 4, 64, 64))[2].shape == (1, DIMS[2], 4, 4)
    rgb = randomise(backbone(1)).state_dict()
    model = checkpoint.build(rgb, in_channels=6, out_indices=(1, 2))
    shape = model.downsample_layers[0][0].weight.shape
    assert (shape[1], model.out_indices) == (6, (1, 2))


def test_a_copy_is_chosen_and_a_hub_is_asked(monkeypatch, tmp_path) -> None:
    plain, average = (randomise(backbone(2)) for _ in range(2))
    states = dict(model=plain.state_dict(), model_ema=average.state_dict())
    model = checkpoint.build(states, ema=True)
    assert same(average.state_dict(), model.state_dict())
    path = save(tmp_path, spell(plain, 'timm'))
    cfg = types.SimpleNamespace(hf_hub_id='owner/name', url='')
    timm = types.SimpleNamespace(get_pretrained_cfg=lambda name: cfg)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    hub = types.SimpleNamespace(
        list_repo_files=lambda repo: ['pytorch_model.bin'],
        hf_hub_download=lambda repo, file: path,
    )
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    model = checkpoint.build('timm://convnextv2_own.tag', with_cp=True)
    assert model.with_cp is True
    image = torch.randn(1, 3, 64, 64)
    assert_close(stage_features(model, image), stage_features(plain, image))


@pytest.mark.parametrize(
    ('state', 'options', 'message'),
    [
        ({'x': torch.ones(1)}, {}, 'state dict: no ConvNeXt found'),
        (None, {'arch': 'tiny'}, 'takes no arch: the file decides'),
        (None, {'prefix': 'teacher'}, "under prefix='teacher'"),
        ('gone.pth', {}, r'gone\.pth does not exist'),
    ],
)
def test_what_cannot_be_built(state, options: dict, message: str) -> None:
    if state is None:
        state = backbone(1, arch=ARCH).state_dict()
    with pytest.raises(CheckpointError, match=message):
        checkpoint.build(state, **options)
