"""Files and models of every format, for the tests of checkpoints."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re

import pytest
import torch
from imports import import_zoo
from torch import nn

from mmconvnext import ConvNeXt, ConvNeXtV2
from mmconvnext.checkpoint import CheckpointError, load
from mmconvnext.checkpoint.formats import EXPORTS, FORMATS, rename

DEPTHS, DIMS = (1, 2, 3, 1), (8, 16, 24, 32)
ARCH = dict(depths=DEPTHS, dims=DIMS)
MODELS = {1: ConvNeXt, 2: ConvNeXtV2}
ONLY = {'torchvision': (1,), 'transformers_dinov3': (1,), 'minkowski': (2,)}
CASES = [
    (name, version) for name in FORMATS for version in ONLY.get(name, (1, 2))
]
EXPORT_CASES = [(name, version) for name in EXPORTS for version in (1, 2)]


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
    """Write a backbone in a format, each tensor in its least similar shape."""
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


def wrap(state: dict, *names: str) -> dict:
    for name in reversed(names):
        if name.endswith('.'):
            state = {name + key: value for key, value in state.items()}
        else:
            state = {name: state, 'epoch': 3}
    return state


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


def assert_refused(model: nn.Module, state, match: str = '', **kwargs) -> str:
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=match) as caught:
        load(model, state, **kwargs)
    assert same(before, model.state_dict())
    return str(caught.value)


def import_or_none(name: str) -> None:
    with contextlib.suppress(pytest.skip.Exception):
        import_zoo(name)


def save(tmp_path, state, name: str = 'a.pth', **kwargs) -> str:
    path = str(tmp_path / name)
    torch.save(state, path, **kwargs)
    return path


def write_bytes(tmp_path, data: bytes, name: str = 'a.pth') -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def torch_bytes(state, **kwargs) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **kwargs)
    return buffer.getvalue()


class Intruder:
    """A pickle of it calls ``os.mkdir`` when it is read without care."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)
