"""Rewrite the channels of what reads a backbone, and nothing else."""

from __future__ import annotations

import re
from typing import Any, Optional

from mmengine.config import ConfigDict

from ..configs import bare_type
from .draft import Draft, translate
from .report import RefusedError, short

# Heads that read the backbone without naming the output: parts of the model
# and of its RoI head. Deeper numbers are a head's own (K-Net's 512).
DIRECT = re.compile(r'[^.]*head(\.\d+)?|roi_head\.[^.]+(\.\d+)?')
SEGMENTATION = re.compile(r'(decode|auxiliary)_head(\.\d+)?')


def rewrite(draft: Draft) -> None:
    """Fit the first neck, or without one the heads, to the new backbone.

    Raises:
        RefusedError: when the neck or every head reads other channels than the
            old backbone returned.
    """
    if draft.new == draft.old.channels:
        return
    key = draft.neck_key()
    if key is not None:
        _rewrite_neck(draft, key)
        return
    before = len(draft.report.changes)
    for key, head in list(draft.heads()):
        _rewrite_head(draft, key, head)
    if len(draft.report.changes) == before:
        raise RefusedError(
            f'no head reads the {list(draft.old.channels)} channels that '
            f'{bare_type(draft.backbone)} returns: it is not known what '
            f'would have to follow'
        )


def _rewrite_neck(draft: Draft, key: str) -> None:
    neck = draft.get(key)
    value = neck.get('in_channels')
    found = None if value is None else _translate(draft, value)
    if found is None:
        raise RefusedError(
            f'{key} ({bare_type(neck)}) reads {short(value)} channels, and '
            f'{bare_type(draft.backbone)} returns {list(draft.old.channels)}'
        )
    why = f'{bare_type(neck)} reads these maps.'
    draft.set(f'{key}.in_channels', found, why)


def _translate(draft: Draft, value: Any) -> Optional[Any]:
    return translate(value, draft.old.channels, draft.new)


def _rewrite_head(draft: Draft, key: str, head: ConfigDict) -> None:
    inside = key[len(draft.site.owner) + 1 :]
    direct = DIRECT.fullmatch(inside) is not None
    value = head.get('in_channels')
    if value is not None:
        found = _by_index(draft, inside, head)
        if found is None and (direct or not isinstance(value, int)):
            found = _translate(draft, value)
        if found is not None:
            why = f'{bare_type(head) or "The head"} reads these maps.'
            draft.set(f'{key}.in_channels', found, why)
    if 'c1_in_channels' in head:
        found = translate(
            head.c1_in_channels, draft.old.channels[:1], draft.new[:1]
        )
        if found is not None:
            why = 'The first map is added for detail.'
            draft.set(f'{key}.c1_in_channels', found, why)
    if direct and 'roi_layer' in head:
        found = _translate(draft, head.out_channels)
        if found is not None:
            why = 'Regions are cut out of the map itself.'
            draft.set(f'{key}.out_channels', found, why)


def _by_index(draft: Draft, inside: str, head: ConfigDict) -> Optional[Any]:
    """Read ``in_index``; a segmentation head without one takes the last."""
    index = head.get('in_index')
    if index is None and SEGMENTATION.fullmatch(inside):
        index = -1
    if index is None:
        return None
    value = head.in_channels
    old, new = draft.old.channels, draft.new
    try:
        if isinstance(value, int) and isinstance(index, int):
            return new[index] if old[index] == value else None
        if list(value) == [old[i] for i in index]:
            return [new[i] for i in index]
    except (IndexError, TypeError):
        return None
    return None
