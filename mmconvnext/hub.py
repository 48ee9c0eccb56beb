"""Configs by name: ``mmconvnext::upernet_convnextv2_tiny_own.py``.

mmengine finds the configs of the packages it lists, in folders, under names
like ``mmdet::folder/file``; it lists no others and takes no entry points.
:func:`install`, which importing this module calls, lets it ask here first,
as ``_base_`` of a config and in ``mmengine.hub``. A ``_base_`` of a host is
found by its module: mmengine asks for the distribution, which is another one
for the maintained forks, with pkg_resources, which setuptools has dropped.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Tuple

from mmengine import hub
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

PREFIX = 'mmconvnext::'
PACKAGE = Path(__file__).parent
# In an installed package (a copy, or links in an editable install), and in
# a source tree that nobody installed.
FOLDERS = (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs')


def config_path(name: str) -> Path:
    """Return the file of one of our configs.

    Args:
        name: with or without ``mmconvnext::``, folder ``configs/``, ``.py``.

    Raises:
        FileNotFoundError: with names like it, where there is none.
    """
    bare = name.replace(PREFIX, '', 1).replace('configs/', '', 1)
    bare = bare if bare.endswith('.py') else f'{bare}.py'
    for folder in FOLDERS:
        if (folder / bare).is_file():
            return folder / bare
    known = sorted({path.name for f in FOLDERS for path in f.glob('*.py')})
    like = difflib.get_close_matches(bare, known, n=4, cutoff=0)
    raise FileNotFoundError(
        f'{PREFIX}{bare} is none of the {len(known)} configs of mmconvnext; '
        f'the names most like it: {", ".join(like)}'
    )


def config_folders(host: str) -> Iterator[Path]:
    """Yield where an installed host may have its configs."""
    spec = importlib.util.find_spec(host)
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    # A wheel has them inside; a source checkout has them next to it.
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if folder.is_dir():
            yield folder


def host_config(name: str) -> Optional[Path]:
    """Return the file of ``mmdet::folder/NAME.py``, None for other names."""
    # Here, for importing `configs` imports mmengine, and that this module.
    from .configs import HOSTS

    host, _, inside = name.partition('::')
    if host not in HOSTS or not inside:
        return None
    inside = inside if inside.endswith('.py') else f'{inside}.py'
    files = (folder / inside for folder in config_folders(host))
    return next((file for file in files if file.is_file()), None)


def get_config(name: str, pretrained: bool = False) -> Config:
    """Read one of our configs: ``mmengine.hub.get_config`` for them.

    Raises:
        FileNotFoundError: for an unknown name.
        ValueError: for ``pretrained``: we publish no trained weights.
    """
    path = config_path(name)
    if pretrained:
        raise ValueError(
            f'{name}: no trained weights are published for it; load a '
            f'checkpoint of your own'
        )
    return Config.fromfile(path)


def get_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build the model of one of our configs, as ``mmengine.hub.get_model``."""
    from .configs import host_of

    cfg = get_config(name, pretrained)
    with DefaultScope.overwrite_default_scope(host_of(cfg) or None):
        return MODELS.build(cfg.model, default_args=kwargs)


def install() -> None:
    """Let mmengine resolve our names; calling it again changes nothing."""
    for function in (get_config, get_model):
        name = function.__name__
        asked = _ours_first(function, getattr(hub, name), _is_ours)
        for module in (hub, getattr(hub, 'hub', hub)):
            setattr(module, name, asked)
    # A private name: where a later mmengine lacks it, `_base_` takes paths
    # and the packages that mmengine lists, and mmengine says so.
    find = getattr(Config, '_get_cfg_path', None)
    if find is not None:
        Config._get_cfg_path = staticmethod(
            _ours_first(_base_path, find, _is_found)
        )


def _base_path(name: str, filename: str) -> Tuple[str, Optional[str]]:
    """Return the file of a base, and the scope of the types in it."""
    if _is_ours(name):
        # No scope: only the backbone is ours, and the config names its host.
        return str(config_path(name)), None
    return str(host_config(name)), name.partition('::')[0]


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _is_found(name: str) -> bool:
    return _is_ours(name) or host_config(name) is not None


def _ours_first(
    ours: Callable, theirs: Callable, mine: Callable[[str], bool]
) -> Callable:
    """Return a function that calls ``ours`` for names that are ``mine``."""
    if hasattr(theirs, 'mmengine_s'):
        return theirs

    @functools.wraps(theirs)
    def choose(name: str, *args: Any, **kwargs: Any) -> Any:
        chosen = ours if mine(str(name)) else theirs
        return chosen(name, *args, **kwargs)

    choose.mmengine_s = theirs
    return choose


install()
