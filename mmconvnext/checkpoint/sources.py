"""Where files of weights come from: paths, downloads, hubs."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, Optional, Union

import torch

from ..files import whole_file

Source = Union[str, 'os.PathLike[str]']


class CheckpointError(ValueError):
    """A file or state dict that is not loaded, with the reason."""


HUB_FILES = (
    'model.safetensors',
    'open_clip_model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'open_clip_pytorch_model.bin',
)


def cache_dir() -> Path:
    """Return where downloads are kept: ``mmconvnext`` in torch's hub."""
    return Path(torch.hub.get_dir(), 'mmconvnext')


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def _check_sha256(path: Path, sha256: Optional[str]) -> None:
    # A prefix counts: published names carry the first eight digits.
    if sha256 and not (
        len(sha256) >= 8 and _digest(path).startswith(sha256.lower())
    ):
        raise CheckpointError(
            f'{path} has sha256 {_digest(path)}, expected {sha256}'
        )


def need(module: str, what: str) -> ModuleType:
    """Import an optional library; ``what`` needs it.

    Raises:
        CheckpointError: with the command that installs it.
    """
    try:
        return __import__(module, fromlist=['*'])
    except ImportError as error:
        package = module.split('.')[0]
        raise CheckpointError(
            f'{what} needs a library that is not installed: '
            f'pip install {package}'
        ) from error


def _download(url: str, sha256: Optional[str]) -> Path:
    base = url.split('?')[0].rsplit('/', 1)[-1]
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = cache_dir() / f'{key}-{base}'
    if path.exists():
        return path
    try:
        with whole_file(path) as part:
            with urllib.request.urlopen(url, timeout=60) as answer:
                expected = answer.headers.get('Content-Length')
                with open(part, 'wb') as file:
                    while block := answer.read(1 << 20):
                        file.write(block)
            size = part.stat().st_size
            if expected is not None and size != int(expected):
                raise CheckpointError(f'got {size} of {expected} bytes')
            _check_sha256(part, sha256)
    except (OSError, CheckpointError) as error:
        raise CheckpointError(
            f'{url} is not downloaded ({error}); fetch it elsewhere and give '
            f'the path of the file'
        ) from error
    return path


def _from_hub(name: str) -> Path:
    """``owner/name`` or ``owner/name/file``, from the Hugging Face hub."""
    hub = need('huggingface_hub', f'hf-hub://{name}')
    parts = name.split('/')
    if len(parts) < 2 or not all(parts):
        raise CheckpointError(f'hf-hub://{name} is no hf-hub://owner/name')
    repo, file = '/'.join(parts[:2]), parts[2:]
    try:
        listed = hub.list_repo_files(repo) if not file else ['/'.join(file)]
        wanted = [f for f in HUB_FILES if f in listed] if not file else listed
        if not wanted:
            raise CheckpointError(f'none of {", ".join(HUB_FILES)} is in it')
        path = Path(hub.hf_hub_download(repo, wanted[0]))
        if path.name.endswith('.index.json'):
            index = json.loads(path.read_text(encoding='utf-8'))['weight_map']
            for shard in sorted(set(index.values())):
                hub.hf_hub_download(repo, shard)
    except Exception as error:  # its errors share no base class
        raise CheckpointError(
            f'hf-hub://{name} is not read: {error}'
        ) from error
    return path


def _from_timm(name: str, sha256: Optional[str]) -> Path:
    timm = need('timm', f'timm://{name}')
    try:
        cfg = timm.get_pretrained_cfg(name)
    except Exception as error:  # RuntimeError or its own, by version
        raise CheckpointError(f'timm://{name}: {error}') from error
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        known = timm.list_pretrained(f'{name.split(".")[0]}*')
        raise CheckpointError(
            f'timm knows no weights {name!r}; of this model it has '
            f'{", ".join(known) or "none"}'
        )
    if cfg.hf_hub_id:
        return _from_hub(cfg.hf_hub_id)
    return _download(cfg.url, sha256)


# prefix of a source: the function that fetches the name after it
SCHEMES: Dict[str, Callable[[str, Optional[str]], Path]] = {
    'https://': lambda name, sha256: _download(f'https://{name}', sha256),
    'file://': lambda name, sha256: Path(name),
    'hf-hub://': lambda name, sha256: _from_hub(name),
    'timm://': _from_timm,
}


def locate(source: Source, sha256: Optional[str] = None) -> Path:
    """Return the file a source names, downloaded where it is not local.

    A local path that holds no file comes back as it is.

    Raises:
        CheckpointError: for a source that cannot be fetched, and for a file
            whose digest does not start with ``sha256``.
    """
    prefix, mark, name = os.fspath(source).rpartition('://')
    prefix += mark
    if not prefix:
        path = Path(name).expanduser()
    elif prefix in SCHEMES:
        path = SCHEMES[prefix](name, sha256)
    else:
        raise CheckpointError(
            f'{source} is not read: {prefix} is none of '
            f'{", ".join(SCHEMES)} or a path'
        )
    if path.is_file():
        _check_sha256(path, sha256)
    return path
