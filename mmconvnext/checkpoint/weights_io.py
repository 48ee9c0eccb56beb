"""Read and write files of weights; nothing in a file can run code.

A pickle is read by torch with ``weights_only=True`` and the short list in
``ALLOWED``, and before that by a dry run that builds nothing and checks each
tensor against the bytes that are really in the file.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import json
import mmap
import os
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from torch import Tensor

from ..files import whole_file
from .sources import (
    SCHEMES,
    CheckpointError,
    Source,
    locate,
    need,
)


def _statistic(owner: Any, name: str) -> Callable[..., float]:
    """Stand in for ``getattr``, which HistoryBuffer pickles its methods by."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise CheckpointError(f'getattr of {name!r} is refused')
    return getattr(HistoryBuffer, name)


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``codecs.encode``, which bytes are pickled by."""
    if encoding != 'latin1':
        raise CheckpointError(f'bytes in the codec {encoding!r} are refused')
    return text.encode('latin1')


def _bytes(*data: bytes) -> bytes:
    """Stand in for ``bytes``, which would fill memory for a number."""
    if any(not isinstance(item, bytes) for item in data):
        raise CheckpointError('bytes of anything but bytes are refused')
    return b''.join(data)


def _named(item: Any) -> str:
    return f'{item.__module__}.{item.__qualname__}'


STATISTICS = ('min', 'max', 'current', 'mean')
DTYPES = {type(np.dtype(kind)) for kind in '?bhilqBHILQefd'}
# Where numpy keeps these two has changed; what it pickles by says it.
NUMPY = (np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0])
# What training frameworks store beside the weights, by pickled name. numpy
# renamed its core, so its two functions go by both paths.
ALLOWED: Dict[str, Any] = {
    'argparse.Namespace': argparse.Namespace,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    '_codecs.encode': _encode,
    'builtins.bytes': _bytes,
    'builtins.getattr': _statistic,
    'builtins.slice': slice,
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    **{_named(dtype): dtype for dtype in DTYPES},
    **{
        f'{path}.multiarray.{item.__name__}': item
        for item in NUMPY
        for path in ('numpy.core', 'numpy._core')
    },
}
# What tensors are pickled by, for torch before 2.6. The names are part of
# the file format, whose readers keep them; those that a torch lacks are
# refused like any other. Storages are named by torch itself.
OF_TENSORS: Dict[str, Tuple[str, ...]] = {
    'builtins': ('complex', 'set'),
    'collections': ('Counter', 'OrderedDict'),
    'torch': ('Size', 'Tensor', 'device'),
    'torch.nn.parameter': ('Buffer', 'Parameter'),
    'torch.serialization': ('_get_layout',),
    'torch._tensor': ('_rebuild_from_type_v2',),
    'torch._utils': (
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_tensor_v3',
        '_rebuild_parameter',
        '_rebuild_parameter_with_state',
        '_rebuild_sparse_tensor',
        '_rebuild_qtensor',
        '_rebuild_meta_tensor_no_storage',
        '_rebuild_nested_tensor',
    ),
}


@functools.cache
def _known() -> Dict[str, Any]:
    """Everything that a pickle may name for torch before 2.6."""
    found = {
        f'{path}.{name}': getattr(importlib.import_module(path), name)
        for path, names in OF_TENSORS.items()
        for name in names
        if hasattr(importlib.import_module(path), name)
    }
    kinds = (torch.dtype, torch.layout, torch.qscheme)
    constants = [v for v in vars(torch).values() if isinstance(v, kinds)]
    return {**found, **{str(v): v for v in constants}, **ALLOWED}


# Only then does torch's own list take names; before, ours stands in.
TORCH_TAKES_NAMES = digit_version(torch.__version__) >= digit_version('2.6')
ITEM_SIZES = {
    'BoolStorage': 1, 'ByteStorage': 1, 'CharStorage': 1, 'QInt8Storage': 1,
    'QUInt8Storage': 1, 'ShortStorage': 2, 'HalfStorage': 2,
    'BFloat16Storage': 2, 'IntStorage': 4, 'FloatStorage': 4,
    'QInt32Storage': 4, 'LongStorage': 8, 'DoubleStorage': 8,
    'ComplexFloatStorage': 8, 'ComplexDoubleStorage': 16,
}  # fmt: skip


class _Stub:
    """Stands for any object of a pickle in the dry run; does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Stub:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


# Python's own unpickler: the one in C fills gigabytes for a forged index.
_Unpickler: Any = pickle._Unpickler


class _DryRun(_Unpickler):
    """Walk through a pickle without building what it names.

    ``sizes`` is the number of bytes of each storage, or the bytes of the
    whole file where (in the format before torch 1.6) a storage has no entry
    of its own.
    """

    def __init__(self, file: Any, sizes: Union[int, Dict[str, int]]) -> None:
        super().__init__(file, encoding='latin1')
        self.sizes = sizes
        self.declared: Dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if name.endswith('Storage'):
            return type(name, (_Stub,), {})
        if name.startswith('_rebuild_') and 'tensor' in name:
            return _check_tensor
        return _Stub

    def persistent_load(self, pid: Any) -> int:
        kind, key, count = pid[1], str(pid[2]), pid[4]
        size = ITEM_SIZES.get(getattr(kind, '__name__', ''), 1) * count
        self.declared[key] = size
        if isinstance(self.sizes, dict):
            inside = count >= 0 and size <= self.sizes.get(key, -1)
        else:
            inside = 0 <= sum(self.declared.values()) <= self.sizes
        if not inside:
            raise CheckpointError(
                f'storage {key} declares {size} bytes, more than the file has'
            )
        return count


def _check_tensor(*args: Any) -> _Stub:
    storage, offset, size, stride = (*args, None, None, None, None)[:4]
    if isinstance(storage, int) and isinstance(size, tuple):
        last = sum((n - 1) * step for n, step in zip(size, stride))
        numbers = (offset, *size, *stride)
        empty = 0 in size
        if min(numbers) < 0 or (not empty and offset + last >= storage):
            raise CheckpointError(
                f'a tensor of shape {size} declares more than its storage of '
                f'{storage} numbers'
            )
    return _Stub()


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [Path(entry.filename) for entry in entries]
        if any(name.name == 'constants.pkl' for name in names):
            raise CheckpointError('it is a TorchScript program, not weights')
        # torch stores its entries as they are. Compressed ones can be a
        # small file that fills the memory.
        if sum(e.file_size for e in entries) > os.path.getsize(path):
            raise CheckpointError('its entries declare more than the file has')
        broken = archive.testzip()
        if broken:
            raise CheckpointError(f'entry {broken} is damaged')
        sizes = {
            entry.filename.rsplit('/', 1)[-1]: entry.file_size
            for entry in entries
            if '/data/' in entry.filename
        }
        data = [str(name) for name in names if name.name == 'data.pkl']
        if len(data) != 1 or len(set(names)) != len(names):
            raise CheckpointError('it is a zip archive, not a torch file')
        _DryRun(io.BytesIO(archive.read(data[0])), sizes).load()


def _check_legacy(path: Path) -> None:
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        if file.read(1) != b'\x80':
            raise CheckpointError(f'it is {_describe(path)}')
        # Mapped, since a read of a forged length would allocate it first.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            # Magic number, protocol, system; then the object itself.
            for _ in range(4):
                _DryRun(view, size).load()


def _describe(path: Path) -> str:
    with open(path, 'rb') as file:
        head = file.read(64)
    if not head:
        return 'an empty file'
    if head[:2] == b'PK':
        return 'a truncated torch file: a zip archive without its end'
    if head.lstrip()[:1] == b'<':
        return 'an HTML or XML page, not weights (a failed download?)'
    return f'no torch or safetensors file; it starts with {head[:8]!r}'


class _Restricted(_Unpickler):
    """For torch before 2.6: ``OF_TENSORS`` and ``ALLOWED``, no more."""

    def find_class(self, module: str, name: str) -> Any:
        full = f'{module}.{name}'.replace('__builtin__', 'builtins')
        if full not in _known():
            raise pickle.UnpicklingError(f'GLOBAL {full} was not allowed')
        return _known()[full]


def _read_pickle(path: Path, map_location: Any) -> Any:
    if zipfile.is_zipfile(path):
        _check_zip(path)
    else:
        _check_legacy(path)
    if not TORCH_TAKES_NAMES:
        module = SimpleNamespace(
            __name__='restricted',
            Unpickler=_Restricted,
            load=lambda file, **kw: _Restricted(file, **kw).load(),
        )
        return torch.load(
            path, map_location, pickle_module=module, weights_only=False
        )
    pairs = [(item, name) for name, item in ALLOWED.items()]
    with torch.serialization.safe_globals(pairs):
        return torch.load(path, map_location, weights_only=True)


def _read_safetensors(path: Path, map_location: Any) -> Dict[str, Tensor]:
    library = need('safetensors.torch', f'{path.name} (safetensors)')
    state = library.load_file(str(path))
    if map_location is None or str(map_location) == 'cpu':
        return state
    if callable(map_location):
        return {k: map_location(v, 'cpu') for k, v in state.items()}
    return {k: v.to(map_location) for k, v in state.items()}


def _read_index(path: Path, map_location: Any) -> Dict[str, Tensor]:
    """Read the shards a ``*.index.json`` names, each key exactly once."""
    index = json.loads(path.read_text())['weight_map']
    state: Dict[str, Tensor] = {}
    for shard in sorted(set(index.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f'shard {shard!r} is not beside its index')
        keys = {key for key, file in index.items() if file == shard}
        tensors = _read_file(path.parent / shard, map_location)
        if set(tensors) != keys:
            wrong = sorted(keys.symmetric_difference(tensors))
            raise CheckpointError(
                f'{shard} and its index differ in {len(wrong)} keys: '
                f'{", ".join(wrong[:5])}'
            )
        state.update(tensors)
    return state


READERS: Dict[str, Callable[[Path, Any], Any]] = {
    '.safetensors': _read_safetensors,
    '.index.json': _read_index,
    '.pth': _read_pickle,
    '.pt': _read_pickle,
    '.bin': _read_pickle,
}


def _read_file(path: Path, map_location: Any) -> Any:
    ends = [end for end in READERS if path.name.endswith(end)]
    if path.is_dir():
        raise CheckpointError(f'{path} is a directory; give the file in it')
    if not path.is_file():
        raise CheckpointError(f'{path} does not exist')
    # Files in a download cache may have no ending; torch's own is assumed.
    reader = READERS[ends[0]] if ends else _read_pickle
    try:
        return reader(path, map_location)
    except CheckpointError as error:
        raise CheckpointError(f'{path} is not read: {error}') from error
    except Exception as error:  # a damaged file breaks parsers anywhere
        raise CheckpointError(
            f'{path} is not read: {_explain(path, error)}'
        ) from error


def _explain(path: Path, error: Exception) -> str:
    refused = re.search(r'GLOBAL (\S+)|`?(\S+)`? was not allowed', str(error))
    if refused:
        name = refused.group(1) or refused.group(2)
        return (
            f'it contains {name}, which could run code and is refused; '
            f'save the weights alone'
        )
    if os.path.getsize(path) < 1024 or isinstance(error, UnicodeDecodeError):
        return f'{_describe(path)} ({type(error).__name__})'
    first = str(error).strip().split('\n')[0][:200]
    return f'truncated or damaged ({type(error).__name__}: {first})'


def read(
    source: Source, sha256: Optional[str] = None, map_location: Any = 'cpu'
) -> Any:
    """Read what a file holds; nothing in it can run code.

    Args:
        source: a path (``.pth``, ``.pt``, ``.bin``, ``.safetensors``, or the
            ``.index.json`` of shards), ``https://...``, ``hf-hub://owner/name``
            or ``timm://name.tag``. Downloads are kept in
            :func:`sources.cache_dir`.
        sha256: what the file's digest must start with, 8 digits or more.
        map_location: as for ``torch.load``.

    Raises:
        CheckpointError: for a source, a file or a digest that is not right,
            a library that is not installed, and a pickle that names
            anything but tensors and ``ALLOWED``.
    """
    return _read_file(locate(source, sha256), map_location)


def schemes() -> List[str]:
    """Name the prefixes that :func:`read` takes besides a plain path."""
    return list(SCHEMES)


def write(state: Any, path: Source) -> None:
    """Write a checkpoint whole or not at all, by the ending of ``path``.

    Raises:
        CheckpointError: for an ending other than ``.pth .pt .bin
            .safetensors``, or a nested dict for safetensors.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise CheckpointError(
            f'{path} must end in .pth, .pt, .bin or .safetensors'
        )
    with whole_file(path) as part:
        if path.suffix != '.safetensors':
            torch.save(state, part)
            return
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f'{path}: safetensors holds tensors only')
        library = need('safetensors.torch', f'{path.name} (safetensors)')
        tensors = {k: v.contiguous() for k, v in state.items()}
        library.save_file(tensors, str(part), metadata={'format': 'pt'})
