"""A config under adoption: where its backbone is and what it returned."""

from __future__ import annotations

from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from mmengine.config import Config, ConfigDict

from ..configs import walk
from .measure import Outputs
from .report import Change, Report

# Parts of a model that hold no layers which read the backbone.
NO_HEADS = (
    'type',
    'backbone',
    'neck',
    'data_preprocessor',
    'train_cfg',
    'test_cfg',
    'init_cfg',
    'reid',
)


class Site(NamedTuple):
    """Where a backbone is: keys of it and of what it is a part of.

    ``outer`` is the backbone that contains it as ``backbone_cfg``, or None.
    """

    owner: str
    backbone: str
    outer: Optional[str] = None


class Draft:
    """A copy of the host's config that rules write to.

    Every write goes through :meth:`set`, so that the report is complete.

    Attributes:
        cfg: the copy.
        report: what was done so far.
        site: where the backbone is.
        old: what the old backbone returned.
        stages: the stage that takes the place of each old output.
        output_stride: of the new backbone.
        dims: channels of the four stages.
    """

    def __init__(
        self, cfg: Config, site: Site, old: Outputs, dims: Tuple[int, ...]
    ) -> None:
        self.cfg, self.site, self.old, self.dims = cfg, site, old, dims
        self.report = Report()
        self.stages: Tuple[int, ...] = ()
        self.output_stride = 32

    @property
    def owner(self) -> ConfigDict:
        """The model that the backbone is a part of."""
        return self.get(self.site.owner)

    @property
    def backbone(self) -> ConfigDict:
        return self.get(self.site.backbone)

    @property
    def outer(self) -> ConfigDict:
        """The backbone around this one; empty for most."""
        return self.get(self.site.outer) if self.site.outer else ConfigDict()

    @property
    def new(self) -> Tuple[int, ...]:
        """Channels of the new backbone's outputs, in the old order."""
        return tuple(self.dims[stage] for stage in self.stages)

    def get(self, key: str) -> Any:
        """Read ``model.neck.0.in_channels``."""
        node = self.cfg
        for part in key.split('.'):
            node = node[int(part) if isinstance(node, list) else part]
        return node

    def set(self, key: str, value: Any, why: str) -> None:
        """Write a setting and report it; equal values change nothing."""
        parent, _, last = key.rpartition('.')
        node = self.get(parent) if parent else self.cfg
        index = int(last) if isinstance(node, list) else last
        missing = not isinstance(node, list) and index not in node
        old = None if missing else node[index]
        if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
            value = type(old)(value)
        if not missing and old == value:
            return
        node[index] = value
        self.report.changes.append(Change(key, old, value, why))

    def clear(self, key: str, why: str) -> None:
        """Set what is there to None: a base file cannot be unset."""
        parent, _, last = key.rpartition('.')
        node = self.get(parent) if parent else self.cfg
        if node.get(last) is not None:
            self.set(key, None, why)

    def neck_key(self) -> Optional[str]:
        """Key of the neck that reads the backbone, None without one."""
        neck = self.owner.get('neck')
        if not neck:
            return None
        first = '.0' if isinstance(neck, (list, tuple)) else ''
        return f'{self.site.owner}.neck{first}'

    def heads(self) -> Iterator[Tuple[str, ConfigDict]]:
        """Yield key and settings of every part that may read the backbone."""
        for name, child in self.owner.items():
            if name not in NO_HEADS:
                yield from walk(child, f'{self.site.owner}.{name}')


def translate(
    values: Any, old: Tuple[int, ...], new: Tuple[int, ...]
) -> Optional[Any]:
    """Replace channels of the old outputs by those of the new ones.

    A list may have all outputs, in either order, or some of them; a number
    must be one of them.

    Returns:
        None where that is not so.
    """
    if isinstance(values, int):
        found = {n for o, n in zip(old, new) if o == values}
        return found.pop() if len(found) == 1 else None
    values = tuple(values)
    if values == old:
        return list(new)
    if values == old[::-1]:
        return list(new[::-1])
    each: List[Optional[int]] = [translate(v, old, new) for v in values]
    return None if None in each else each
