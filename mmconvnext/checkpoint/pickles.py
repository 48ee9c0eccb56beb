"""What a pickle of weights may name, and unpicklers that build no more.

torch reads its own files with the names in ``ALLOWED``; before that a dry
run checks each tensor against the bytes that are really in the file.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import pathlib
import pickle
import re
from typing import Any, Callable, Dict, Tuple, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .sources import CheckpointError


def _statistic(owner: Any, name: str) -> Callable[..., float]:
    """Replace ``getattr``, by which HistoryBuffer pickles its methods."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise CheckpointError(f'getattr of {name!r} is refused')
    return getattr(HistoryBuffer, name)


def _encode(text: str, encoding: str) -> bytes:
    """Replace ``codecs.encode``, by which bytes are pickled."""
    if encoding != 'latin1':
        raise CheckpointError(f'bytes in the codec {encoding!r} are refused')
    return text.encode('latin1')


def _bytes(*data: bytes) -> bytes:
    """Replace ``bytes``, which would fill memory for a number."""
    if any(not isinstance(item, bytes) for item in data):
        raise CheckpointError('bytes of anything but bytes are refused')
    return b''.join(data)


def _dict(*pairs: Any) -> Dict[Any, Any]:
    """Replace ``ConfigDict``: a plain dict holds the same."""
    return dict(*pairs)


def _dict_without_default(factory: Any = None, *pairs: Any) -> Dict[Any, Any]:
    """Replace ``defaultdict``, whose factory nothing here needs."""
    return dict(*pairs)


def _factory() -> None:
    """Replace the types that ``defaultdict`` is given; makes nothing."""


def _named(item: Any) -> str:
    return f'{item.__module__}.{item.__qualname__}'


# The authors' runs over several nodes store where they write. A path of
# another system is only text here, and a pure path reaches no file.
PATHS = {
    'PosixPath': pathlib.PurePosixPath,
    'WindowsPath': pathlib.PureWindowsPath,
    'PurePosixPath': pathlib.PurePosixPath,
    'PureWindowsPath': pathlib.PureWindowsPath,
}
STATISTICS = ('min', 'max', 'current', 'mean')
# Numbers, texts and times. Objects and records are missing on purpose: their
# state contains addresses, which a forged pickle can choose.
KINDS = '?bhilqBHILQefdgFDGSUmM'
DTYPES = {type(np.dtype(kind)) for kind in KINDS}
# Where numpy keeps these has changed; what it pickles by says it.
NUMPY: Dict[Any, str] = {
    np.empty(0).__reduce__()[0]: 'multiarray',
    np.float64(0).__reduce__()[0]: 'multiarray',
    np.empty(1).__reduce_ex__(5)[0]: 'numeric',
}
# What training frameworks store beside the weights, by pickled name. numpy
# renamed its core, so its functions go by both paths.
ALLOWED: Dict[str, Any] = {
    'argparse.Namespace': argparse.Namespace,
    'collections.defaultdict': _dict_without_default,
    'mmengine.config.config.ConfigDict': _dict,
    **{
        f'{builtins}.{name}': _factory
        for builtins in ('builtins', '__builtin__')
        for name in ('int', 'long', 'float', 'list', 'dict')
    },
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    '_codecs.encode': _encode,
    'builtins.bytes': _bytes,
    'builtins.getattr': _statistic,
    'builtins.slice': slice,
    **{
        f'{module}.{name}': pure
        for module in ('pathlib', 'pathlib._local')  # the latter: 3.13
        for name, pure in PATHS.items()
    },
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    **{_named(dtype): dtype for dtype in DTYPES},
    **{
        f'{path}.{module}.{item.__name__}': item
        for item, module in NUMPY.items()
        for path in ('numpy.core', 'numpy._core')
    },
}
# What tensors are pickled by, for torch before 2.6. The names are part of
# the file format, whose readers keep them; those missing from a torch are
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


ITEM_SIZES = {
    'BoolStorage': 1, 'ByteStorage': 1, 'CharStorage': 1, 'QInt8Storage': 1,
    'QUInt8Storage': 1, 'ShortStorage': 2, 'HalfStorage': 2,
    'BFloat16Storage': 2, 'IntStorage': 4, 'FloatStorage': 4,
    'QInt32Storage': 4, 'LongStorage': 8, 'DoubleStorage': 8,
    'ComplexFloatStorage': 8, 'ComplexDoubleStorage': 16,
}  # fmt: skip


class _Stub:
    """Replaces every object of a pickle in the dry run; does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Stub:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _Array(_Stub):
    """``numpy.ndarray``, which numpy's pickles name and never call.

    Called, it takes any bytes for the memory of an array.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> _Array:
        raise CheckpointError('an array over raw memory is refused')


class _DType(_Stub):
    """``numpy.dtype``: only those whose memory is no address."""

    def __init__(self, kind: Any = '', *flags: Any) -> None:
        known = re.fullmatch(r'[?a-zA-Z]\d*', str(kind))
        if not known or np.dtype(kind).char not in KINDS:
            raise CheckpointError(f'numpy arrays of {kind!r} are refused')
        self.size = np.dtype(kind).itemsize

    def __setstate__(self, state: Any) -> None:
        # version, byte order, parts (3), size, alignment, flags, unit
        _, order, *parts, size, _, flags = state[:8]
        plain = order in ('<', '>', '=', '|') and not any(parts)
        # The flag of 8 asks for zeroed memory; others declare addresses.
        if not plain or size not in (-1, self.size) or flags not in (0, 8):
            raise CheckpointError('a forged numpy type is refused')


NUMPY_STUBS = {'numpy.ndarray': _Array, 'numpy.dtype': _DType}


# Python's own unpickler: the one in C fills gigabytes for a forged index.
_Unpickler: Any = pickle._Unpickler


class DryRun(_Unpickler):
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
        return NUMPY_STUBS.get(f'{module}.{name}', _Stub)

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


class Restricted(_Unpickler):
    """Builds ``OF_TENSORS`` and ``ALLOWED``, no more.

    For torch before 2.6, and for pickles that torch did not write.
    """

    def find_class(self, module: str, name: str) -> Any:
        full = f'{module}.{name}'.replace('__builtin__', 'builtins')
        if full not in _known():
            raise pickle.UnpicklingError(f'GLOBAL {full} was not allowed')
        return _known()[full]


def read_plain(file: Any, map_location: Any = 'cpu') -> Any:
    """Read a pickle of numpy arrays, as detectron2 writes; give tensors.

    Raises:
        CheckpointError: for tensors of torch, which such a pickle stores as
            files inside the file.
    """
    try:
        found = Restricted(file, encoding='latin1').load()
    except pickle.UnpicklingError as error:
        if '_load_from_bytes' not in str(error):
            raise
        raise CheckpointError(
            'it is a plain pickle of torch tensors; load it where it was '
            'made and write it with torch.save'
        ) from error
    return _to_tensors(found, map_location)


def _to_tensors(value: Any, map_location: Any) -> Any:
    if isinstance(value, dict):
        return {k: _to_tensors(v, map_location) for k, v in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype.kind not in 'fiub':
        return value
    native = value.astype(value.dtype.newbyteorder('='))
    tensor: Tensor = torch.from_numpy(native)
    if callable(map_location):
        return map_location(tensor, 'cpu')
    return tensor.to(map_location or 'cpu')
