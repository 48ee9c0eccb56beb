"""What a pickle may name: paths, arrays of numpy, nothing that runs."""

import collections
import os
import pathlib
import pickle
import zipfile

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
    write_bytes,
)
from mmengine.config import ConfigDict
from torch import nn

from mmconvnext.checkpoint import CheckpointError, load, weights_io

PATHS = [
    pathlib.Path('checkpoint/%j'),
    pathlib.PurePosixPath('/a/b'),
    pathlib.PureWindowsPath('C:/a/b'),
]
LISTS = pytest.mark.parametrize('names', [True, False])


def choose_list(monkeypatch: pytest.MonkeyPatch, names: bool) -> None:
    """With torch's own list of names, or with ours (torch before 2.6)."""
    takes = names and weights_io.TORCH_TAKES_NAMES
    monkeypatch.setattr(weights_io, 'TORCH_TAKES_NAMES', takes)


@LISTS
@pytest.mark.parametrize('value', PATHS, ids=repr)
def test_paths_are_read(tmp_path, monkeypatch, value, names: bool) -> None:
    """The authors' submitit_pretrain.py stores one in ``args``."""
    choose_list(monkeypatch, names)
    state = {'model': randomise(backbone(2)).state_dict(), 'args': value}
    path = save(tmp_path, state)
    target = backbone(2)
    load(target, path)
    assert same(state['model'], target.state_dict())
    back = weights_io.read(path)['args']
    assert back == value
    assert isinstance(back, pathlib.PurePath)
    assert not isinstance(back, pathlib.Path)  # it reaches no file


@LISTS
@pytest.mark.parametrize('module', [b'pathlib', b'pathlib._local'])
@pytest.mark.parametrize('kind', [b'PosixPath', b'WindowsPath'])
def test_paths_of_other_pythons_and_systems(
    tmp_path, monkeypatch, module: bytes, kind: bytes, names: bool
) -> None:
    choose_list(monkeypatch, names)
    path = save(tmp_path, {'x': 1, 'args': pathlib.PurePosixPath('a/b')})
    name = type(PATHS[1]).__module__.encode() + b'\nPurePosixPath\n'
    swap_in_zip(path, name, module + b'\n' + kind + b'\n')
    assert weights_io.read(path)['args'].parts == ('a', 'b')


def swap_in_zip(path: str, old: bytes, new: bytes) -> None:
    """Replace bytes of the pickle in a torch file."""
    with zipfile.ZipFile(path) as archive:
        entries = {i.filename: archive.read(i) for i in archive.infolist()}
    key = next(name for name in entries if name.endswith('data.pkl'))
    assert entries[key].count(old) == 1
    entries[key] = entries[key].replace(old, new)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def detectron2(model: nn.Module) -> dict:
    state = model.state_dict()
    arrays = {f'backbone.{k}': v.numpy() for k, v in state.items()}
    return dict(model=arrays, __author__='third_party', matching_heuristics=1)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('version', [1, 2])
def test_pickles_of_detectron2(tmp_path, version: int, protocol: int) -> None:
    source, target = randomise(backbone(version)), backbone(version)
    data = pickle.dumps(detectron2(source), protocol)
    load(target, write_bytes(tmp_path, data, 'a.pkl'))
    assert same(source.state_dict(), target.state_dict())
    # The content decides: files are renamed.
    load(backbone(version), write_bytes(tmp_path, data, 'b.pth'))


def test_arrays_become_tensors(tmp_path) -> None:
    value = {
        'half': np.ones(2, np.float16),
        'swapped': np.arange(3, dtype='>f4'),
        'text': np.array(['a']),
        'deep': {'x': np.eye(2)},
    }
    path = write_bytes(tmp_path, pickle.dumps(value), 'a.pkl')
    back = weights_io.read(path)
    assert back['half'].dtype == torch.float16
    assert back['swapped'].tolist() == [0, 1, 2]
    assert isinstance(back['text'], np.ndarray)
    assert torch.equal(back['deep']['x'], torch.eye(2, dtype=torch.float64))
    meta = weights_io.read(path, map_location='meta')
    assert meta['deep']['x'].is_meta


def test_nothing_in_a_plain_pickle_runs(tmp_path) -> None:
    trace = str(tmp_path / 'trace')
    state = {**detectron2(backbone(1)), 'x': Intruder(trace)}
    path = write_bytes(tmp_path, pickle.dumps(state), 'a.pkl')
    assert_refused(backbone(1), path, r'mkdir.*refused')
    assert not os.path.exists(trace)


def test_plain_pickles_that_are_not_read(tmp_path) -> None:
    whole = pickle.dumps(detectron2(backbone(1)))
    path = write_bytes(tmp_path, whole[:-9], 'a.pkl')
    assert_refused(backbone(1), path, 'truncated')
    tensors = pickle.dumps({'model': backbone(1).state_dict()})
    path = write_bytes(tmp_path, tensors, 'a.pkl')
    assert_refused(backbone(1), path, 'plain pickle of torch tensors.*save')


def test_no_pkl_is_written(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r'must end in \.pth'):
        weights_io.write({}, tmp_path / 'a.pkl')


class Calls:
    """Pickled as a call of a function, and a state for what it returns."""

    def __init__(self, function, *args, state=None) -> None:
        self.reduced = (function, args, state)

    def __reduce__(self):
        function, args, state = self.reduced
        return (function, args) if state is None else self.reduced


def of_type(kind: str, *state):
    return Calls(np.dtype, kind, False, True, state=state or None)


FORGED = {
    'memory that a pickle chose': (
        Calls(np.ndarray, (1,), of_type('O8'), bytes(8)),
        "arrays of 'O8'",
    ),
    'an array over bytes': (
        Calls(np.ndarray, (1,), of_type('f4'), bytes(8)),
        'raw memory',
    ),
    'objects': (np.array([None, 'a'], dtype=object), "arrays of 'O8'"),
    'records': (np.zeros(1, [('a', 'f4')]), "arrays of 'V4'"),
    'fields in a number': (
        of_type(
            'f8', 3, '<', None, ('a',), {'a': (np.dtype('f8'), 0)}, -1, -1, 0
        ),
        'forged numpy type',
    ),
    'flags of objects': (
        of_type('f8', 3, '<', None, None, None, -1, -1, 63),
        'forged numpy type',
    ),
    'another size': (
        of_type('S1', 3, '|', None, None, None, 1 << 40, 1, 0),
        'forged numpy type',
    ),
}


@LISTS
@pytest.mark.parametrize('plain', [True, False])
@pytest.mark.parametrize('name', FORGED)
def test_forged_arrays_are_refused(
    tmp_path, monkeypatch, name: str, plain: bool, names: bool
) -> None:
    """Objects in an array are addresses; a pickle must not choose them."""
    choose_list(monkeypatch, names)
    value, words = FORGED[name]
    path = tmp_path / ('forged.pkl' if plain else 'forged.pth')
    if plain:
        path.write_bytes(pickle.dumps(dict(model=value), 2))
    else:
        torch.save(dict(model=value), path)
    with pytest.raises(CheckpointError, match=words):
        weights_io.read(path)


HARMLESS = [
    (np.str_('text'), np.str_('text')),
    (np.bytes_(b'text'), np.bytes_(b'text')),
    (np.datetime64('2026-11-27'), np.datetime64('2026-11-27')),
    (np.complex64(1j), np.complex64(1j)),
    (np.array(['a', 'bc']), ['a', 'bc']),
    (np.array(['2026-11-27'], 'M8[D]'), [np.datetime64('2026-11-27')]),
    (collections.defaultdict(int, a=1), dict(a=1)),
    (collections.defaultdict(list, a=[1]), dict(a=[1])),
    (collections.Counter('aab'), dict(a=2, b=1)),
    (ConfigDict(a=dict(b=1)), dict(a=dict(b=1))),
]


@LISTS
@pytest.mark.parametrize(('value', 'expected'), HARMLESS, ids=repr)
def test_what_frameworks_store_is_read(
    tmp_path, monkeypatch, value, expected, names: bool
) -> None:
    choose_list(monkeypatch, names)
    path = tmp_path / 'a.pth'
    torch.save(dict(model={}, stored=value), path)
    found = weights_io.read(path)['stored']
    assert np.all(found == np.array(expected)) or found == expected
