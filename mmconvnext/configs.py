"""Read hosts' configs, however they are written.

A type may be a name, a name with a scope, or a class; a data set may be
wrapped; an evaluator may be one or several.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope

HOSTS = ('mmdet', 'mmseg')


def bare_type(kind: Any) -> str:
    """Return the name of a config's ``type`` without scope or module.

    A type is a name (``'Resize'``), a name with a scope
    (``'mmdet.Resize'``), a class, as in mmengine's pure-Python configs, or
    the text mmengine dumps such a class to (``'mmcv.transforms.Resize'``).

    Args:
        kind: a type, or a config with one; anything else has the name ''.
    """
    if isinstance(kind, Mapping):
        kind = kind.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def host_of(cfg: Config) -> str:
    """Return the host a config is of: its scope, or that of its model.

    Pure-Python configs have no ``default_scope``; the module of the model's
    class, or the scope of its name, is taken then. '' where neither says.
    """
    scope = cfg.get('default_scope')
    if scope:
        return scope
    kind = (cfg.get('model') or {}).get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__module__', '')
    first = (name or '').partition('.')[0]
    return first if first in HOSTS else ''


def enter_scope(cfg: Config) -> None:
    """Let types without a scope be looked up in the config's host."""
    init_default_scope(host_of(cfg) or 'mmengine')


def as_list(value: Any) -> List[Any]:
    """Return a list of what may be one, several, or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def leaves(dataset: Mapping) -> Iterator[Dict]:
    """Yield the data sets inside wrappers (RepeatDataset, ConcatDataset...).

    What is yielded is part of ``dataset``: changes to it are changes there.
    """
    inner = as_list(dataset.get('datasets')) or as_list(dataset.get('dataset'))
    if not inner:
        yield dataset
    for child in inner:
        yield from leaves(child)


def steps_of(pipeline: Any) -> Iterator[Dict]:
    """Yield all steps of a pipeline, those inside of others included."""
    for step in as_list(pipeline):
        if isinstance(step, (list, tuple)):
            yield from steps_of(step)
        elif isinstance(step, Mapping):
            yield step
            yield from steps_of(step.get('transforms'))


def walk(node: Any, key: str) -> Iterator[Tuple[str, Dict]]:
    """Yield key and value of every dict at or below ``node``."""
    if isinstance(node, dict):
        yield key, node
        for name, child in node.items():
            yield from walk(child, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from walk(child, f'{key}.{index}')
