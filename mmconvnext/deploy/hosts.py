"""A file in the place of a checkpoint: what the tools make of a config."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from mmengine.config import Config

from ..configs import leaves
from .describe import config_of, names_of
from .runner import load

SUFFIX = '.onnx'


def is_exported(path: str) -> bool:
    """Whether a path names an exported file, not a checkpoint."""
    return str(path).lower().endswith(SUFFIX)


def config_for(config: Optional[str], checkpoint: str) -> Optional[Config]:
    """The config in a file, for a command line that names no other.

    Returns:
        None where a config is named: it is read as ever.

    Raises:
        FileNotFoundError: without the file.
        ValueError: for a checkpoint without a config, a file from elsewhere,
            or one that holds no config.
    """
    if config is not None:
        return None
    if not is_exported(checkpoint):
        raise ValueError(
            f'a config goes before the checkpoint {checkpoint}; only a file '
            f'from tools/export.py ({SUFFIX}) brings its own'
        )
    about = load(checkpoint).description
    if not about.test:
        raise ValueError(f'{checkpoint} holds no config: put one before it')
    return config_of(about)


def use_file(cfg: Config, file: str, **options: Any) -> None:
    """Let a config build an ExportedModel in the place of its model.

    Args:
        cfg: changed.
        file: written by ``tools/export.py`` or ``tools/quantize.py``.
        options: of :func:`mmconvnext.deploy.load`; None is the default.

    Raises:
        FileNotFoundError, ValueError: as :func:`mmconvnext.deploy.load`;
            for classes that are not those of the config's test data.
    """
    options = {key: value for key, value in options.items() if value}
    about = load(file, **options).description
    if about.task == 'classification':
        _name_classes(cfg, about.classes)
    classes, _ = names_of(cfg)
    if classes != about.classes:
        raise ValueError(
            f'{file} has the classes {", ".join(about.classes)}, the '
            f'config {", ".join(classes)}'
        )
    cfg.model = dict(type='mmconvnext.ExportedModel', file=file, **options)
    cfg.load_from = None


def _name_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Let test data that names no classes have those of the file.

    Otherwise they are those of its folders, which need not be there, and of
    which one may be missing.
    """
    for leaf in leaves(cfg.test_dataloader.dataset):
        given = {**(leaf.get('metainfo') or {})}
        given.setdefault('classes', list(classes))
        leaf['metainfo'] = given


def summary(cfg: Config) -> str:
    """Say in a line what a config runs that :func:`use_file` changed."""
    options = {k: v for k, v in cfg.model.items() if k not in ('type', 'file')}
    about = load(cfg.model['file'], **options).description
    words = [about.task, about.precision, *map(str, options.values())]
    if about.window:
        sizes = ('x'.join(map(str, x)) for x in (about.window, about.stride))
        words.append('slide {} stride {}'.format(*sizes))
    return f'{cfg.model["file"]}: {", ".join(words)}'
