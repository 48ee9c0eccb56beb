"""Read and write files of weights; nothing in a file can run code.

A pickle is read by torch with ``weights_only=True`` and the short list in
``pickles``, and before that by a dry run that builds nothing and checks each
tensor against the bytes that are really in the file.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import torch
from mmengine.utils import digit_version
from torch import Tensor

from ..files import whole_file
from .pickles import ALLOWED, DryRun, Restricted, read_plain
from .sources import (
    SCHEMES,
    CheckpointError,
    Source,
    locate,
    need,
)

# What a file of torch before 1.6 starts with.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
WRITTEN = ('.pth', '.pt', '.bin', '.safetensors')
# Only then does torch's own list take names; before, ours is used.
TORCH_TAKES_NAMES = digit_version(torch.__version__) >= digit_version('2.6')


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
        DryRun(io.BytesIO(archive.read(data[0])), sizes).load()


def _check_legacy(path: Path) -> bool:
    """Check a file of torch before 1.6; False for a pickle of another."""
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        if file.read(1) != b'\x80':
            raise CheckpointError(f'it is {_describe(path)}')
        # Mapped, since a read of a forged length would allocate it first.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            # Magic number, protocol, system; then the object itself.
            if DryRun(view, size).load() != MAGIC_NUMBER:
                return False
            for _ in range(3):
                DryRun(view, size).load()
    return True


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


def _read_pickle(path: Path, map_location: Any) -> Any:
    if zipfile.is_zipfile(path):
        _check_zip(path)
    elif not _check_legacy(path):
        with open(path, 'rb') as file:
            return read_plain(file, map_location)
    if not TORCH_TAKES_NAMES:
        module = SimpleNamespace(
            __name__='restricted',
            Unpickler=Restricted,
            load=lambda file, **kw: Restricted(file, **kw).load(),
        )
        return torch.load(
            path, map_location, pickle_module=module, weights_only=False
        )
    pairs: List[Any] = [(item, name) for name, item in ALLOWED.items()]
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
    index = json.loads(path.read_text(encoding='utf-8'))['weight_map']
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
    '.pkl': _read_pickle,
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
        source: a path (``.pth``, ``.pt``, ``.bin``, ``.safetensors``, the
            ``.index.json`` of shards, or a ``.pkl`` of numpy arrays),
            ``https://...``, ``hf-hub://owner/name``
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


def damage(path: Path) -> Optional[str]:
    """Say why a checkpoint of a run is not whole, None where it is.

    An archive is checked by its checksums, without building a tensor.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_zip(path)
        else:
            _read_file(path, 'cpu')
    except CheckpointError as error:
        text = str(error)
        return text if str(path) in text else f'{path} is not read: {text}'
    except Exception as error:  # a damaged file breaks parsers anywhere
        return f'{path} is not read: {_explain(path, error)}'
    return None


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
    if path.suffix not in WRITTEN:
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
