"""Nothing in a file runs, and no file is read or written partly."""

from __future__ import annotations

import argparse
import codecs
import collections
import copy
import io
import json
import os
import random
import zipfile
from typing import Callable

import numpy as np
import pytest
import torch
from checkpoints import (
    Intruder,
    assert_refused,
    backbone,
    randomise,
    same,
    save,
    snapshot,
    torch_bytes,
    write_bytes,
)
from imports import import_zoo
from mmengine.logging import HistoryBuffer
from torch import nn

from mmconvnext import ConvNeXtV2
from mmconvnext.checkpoint import CheckpointError, load, weights_io


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


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.5, 1, torch.qint8)


def with_attribute() -> torch.Tensor:
    x = torch.ones(2)
    x.note = 'seen'
    return x


def parameter_with_attribute() -> nn.Parameter:
    x = nn.Parameter(torch.ones(2))
    x.decay = False
    return x


# What a checkpoint may hold, by the way it is pickled.
HELD = {
    'tensor': lambda: torch.ones(2, 3),
    'parameter': lambda: nn.Parameter(torch.ones(2)),
    'parameter with attribute': parameter_with_attribute,
    'tensor with attribute': with_attribute,
    'sparse': lambda: torch.eye(3).to_sparse(),
    'sparse rows': lambda: torch.eye(3).to_sparse_csr(),
    'meta': lambda: torch.empty(2, device='meta'),
    'quantised': quantised,
    'types': lambda: [torch.float32, torch.int8, torch.bfloat16],
    'device and size': lambda: [torch.device('cpu'), torch.Size([1, 2])],
    'float': lambda: np.float64(1.5),
    'single': lambda: np.float32(1.5),
    'int': lambda: np.int64(3),
    'bool': lambda: np.bool_(True),
    'array': lambda: np.arange(4.0),
    'empty array': lambda: np.array([]),
    'bytes': lambda: [b'a\xff', b''],
    'slice': lambda: slice(1, 2),
    'containers': lambda: [{1}, 1j, collections.Counter('aab')],
    'namespace': lambda: argparse.Namespace(lr=np.float64(0.1)),
}


@pytest.mark.parametrize('names', [True, False])
@pytest.mark.parametrize('kind', HELD)
def test_each_kind_is_read_with_every_torch(
    tmp_path, monkeypatch, kind: str, names: bool
) -> None:
    monkeypatch.setattr(
        weights_io,
        'TORCH_TAKES_NAMES',
        names and weights_io.TORCH_TAKES_NAMES,
    )
    value = HELD[kind]()
    back = weights_io.read(save(tmp_path, {'x': value}))['x']
    assert type(back) is type(value)
    # Sparse and quantised ones have no equality; all have a text.
    assert str(getattr(back, '__dict__', back)) == str(
        getattr(value, '__dict__', value)
    )
    assert str(back) == str(value)


class Reduced:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    'value, match',
    [
        (Reduced(codecs.encode, 'aaaa', 'rot13'), "codec 'rot13'"),
        (Reduced(bytes, 1 << 40), 'bytes of anything but bytes'),
        (Reduced(torch.load, 'a'), 'torch.serialization.load'),
        (Reduced(torch.hub.load, 'a'), 'torch.hub.load'),
        (Reduced(eval, '1'), 'eval'),
    ],
    ids=['codec', 'bytes', 'load', 'hub', 'eval'],
)
def test_functions_do_what_pickles_need_only(
    tmp_path, monkeypatch, value: object, match: str
) -> None:
    monkeypatch.setattr(weights_io, 'TORCH_TAKES_NAMES', False)
    with pytest.raises(CheckpointError, match=match):
        weights_io.read(save(tmp_path, {'x': value}))


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
    # The pickle has the number of elements as BININT1.
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
