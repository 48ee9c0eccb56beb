"""Configs of the hosts: found by name, read, and given their name again."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Optional, Tuple

from mmengine.config import Config

from ..configs import HOSTS
from ..hub import config_folders, host_config

# Their types can be adopted without them: see ``measure``.
CLASSIFIERS = ('mmpretrain', 'mmcls')
NAME = re.compile(r'(\w+)::(.+)')


def locate(source: str) -> Path:
    """Return the file of a config: a path, or ``mmdet::dino/NAME.py``.

    Raises:
        FileNotFoundError: with the names that come closest.
        ValueError: for an unknown host.
    """
    match = NAME.fullmatch(str(source))
    if match is None:
        if not Path(source).is_file():
            raise FileNotFoundError(f'config file not found: {source}')
        return Path(source)
    host, name = match.groups()
    if host not in HOSTS:
        raise ValueError(
            f'{source}: configs by name are those of {", ".join(HOSTS)}'
        )
    found = host_config(source)
    if found is None:
        raise FileNotFoundError(_nearest(source, host, name))
    return found


def _nearest(source: str, host: str, name: str) -> str:
    folders = list(config_folders(host))
    if not folders:
        return f'{source}: {host} is not installed'
    beside = sorted(
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in (folder / name).parent.glob('*.py')
    )
    known = [f'{host}::{path}' for path in beside[:20]] or sorted(
        f'{host}::{path.name}/'
        for folder in folders
        for path in folder.iterdir()
        if path.is_dir()
    )
    return f'{source} is no config of the installed {host}; there are: ' + (
        ', '.join(known)
    )


def public_name(path: Path) -> Optional[str]:
    """Return ``mmdet::dino/NAME.py`` for a host's file, else None."""
    path = path.resolve()
    for host in HOSTS:
        for folder in config_folders(host):
            if folder.resolve() in path.parents:
                inside = path.relative_to(folder.resolve()).as_posix()
                return f'{host}::{inside}'
    return None


def method_of(path: Path) -> Optional[str]:
    """Return how a host names the method of its config, else None.

    The folder's metafile has it: DeepLabV3+, PSPNet.
    """
    import yaml

    if public_name(path) is None:
        return None
    for metafile in path.parent.glob('metafile.y*ml'):
        found = yaml.safe_load(metafile.read_text(encoding='utf-8'))
        names = [each['Name'] for each in found.get('Collections') or ()]
        if len(names) == 1:
            return names[0]
    return None


def base_name(name: str) -> str:
    """Spell a host's name so that mmengine's ``_base_`` reads it.

    Its pattern of a folder is letters, digits and underscores: ``gn+ws`` and
    ``legacy_1.x`` are reached through a folder that fits.
    """
    if re.match(r'\w*::\w*/\w*', name):
        return name
    host, inside = name.split('::')
    return f'{host}::_base_/../{inside}'


def read(source: str) -> Config:
    """Read a config of a host, or one that builds on it.

    What it imports from a classification library may be missing: such
    imports are for the old backbone.

    Raises:
        FileNotFoundError: when there is no such config.
    """
    cfg = Config.fromfile(locate(source), import_custom_modules=False)
    for module in imported_modules(cfg):
        try:
            importlib.import_module(module)
        except Exception:  # mmpretrain fails in many ways with newer libraries
            if module.split('.')[0] not in CLASSIFIERS:
                raise
    return cfg


def imported_modules(cfg: Config) -> Tuple[str, ...]:
    """List what ``custom_imports`` of a config names."""
    names = (cfg.get('custom_imports') or {}).get('imports') or ()
    return (names,) if isinstance(names, str) else tuple(names)
