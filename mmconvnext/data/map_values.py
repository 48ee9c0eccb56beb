"""Judge the values of label maps: do they fit the classes of the config?"""

from __future__ import annotations

from collections import Counter
from typing import Dict, Iterator, List, NamedTuple

from .findings import Finding, some
from .sources import Source


class Values(NamedTuple):
    """What the sampled maps hold.

    Attributes:
        raw: pixels by value in the file.
        trained: pixels by value after the loading step.
        where: the first file with a value after the loading step.
        read: how many maps were read.
    """

    raw: Counter
    trained: Counter
    where: Dict[int, str]
    read: int


def judge_values(
    source: Source, values: Values, total: int
) -> Iterator[Finding]:
    """Compare the values of the sample with the classes of the config."""
    count, ignored = len(source.classes), source.data.ignore_index
    folder = source.data.data_prefix.get('seg_map_path') or ''
    seen = sorted(v for v in values.trained if v != ignored)
    raw = f'values {some(sorted(values.raw), 12)} in {values.read} of {total}'
    beyond = [value for value in seen if value >= count]
    if not count:
        yield _no_classes(source, folder, raw)
    elif beyond:
        yield _beyond(source, values, raw, beyond)
    elif len(seen) < 2:
        yield _constant(source, folder, raw, seen)
    else:
        yield from _unseen(source, folder, raw, seen)
        if _wasted_zero(source, values, seen):
            yield _zero(source, folder, raw)


def _no_classes(source: Source, folder: str, raw: str) -> Finding:
    return Finding(
        'error',
        folder,
        f'{raw} maps, and no classes in the config',
        'metainfo=dict(classes=(...)) in the data set',
        f'name the classes of {source.loader}',
    )


def _beyond(
    source: Source, values: Values, raw: str, beyond: List[int]
) -> Finding:
    """Name a label that no class has, and the mistake it points to."""
    count = len(source.classes)
    fix = f'name {max(beyond) + 1} classes, or correct the maps'
    reduced = source.data.reduce_zero_label
    if count == 1 and beyond == [1] and not reduced:
        name = source.classes[0]
        fix = f"classes=('background', {name!r}) and num_classes=2"
    elif not reduced and beyond == [count] and 0 in values.trained:
        fix = (
            'reduce_zero_label=True in the data set if 0 is unlabelled, '
            f'else name {count + 1} classes'
        )
    elif set(values.raw) <= {0, 255} or max(values.raw) > count + 1:
        fix += '; python tools/new_project.py FOLDER renumbers them'
    after = ' after reduce_zero_label' if reduced else ''
    return Finding(
        'error',
        values.where[beyond[0]],
        f'{raw} maps: {some(beyond)}{after} is no class',
        f'0 to {count - 1}, or {source.data.ignore_index} to ignore',
        fix,
    )


def _constant(
    source: Source, folder: str, raw: str, seen: List[int]
) -> Finding:
    """One class alone, or none: the loss is 0 whatever a model says."""
    reduced = source.data.reduce_zero_label
    left = f'class {seen[0]} is all' if seen else 'nothing'
    why = ' after reduce_zero_label' if reduced else ''
    fix = 'give the rest of the image a class of its own'
    if reduced:
        fix = (
            'reduce_zero_label=False, so that 0 is a class: name it first in '
            "classes, as in ('background', 'thing')"
        )
    return Finding(
        'error' if source.is_training else 'warning',
        folder,
        f'{raw} maps: {left} that is left to learn{why}',
        'at least two classes among the labelled pixels',
        f'{fix}; maps of 0 and {source.data.ignore_index}: '
        'python tools/new_project.py FOLDER writes 0 and 1',
    )


def _unseen(
    source: Source, folder: str, raw: str, seen: List[int]
) -> Iterator[Finding]:
    missing = [name for i, name in enumerate(source.classes) if i not in seen]
    if missing and source.is_training:
        yield Finding(
            'warning',
            folder,
            f'{raw} maps: no pixel of {some(missing)}',
            'examples of every class',
            'leave the class out, or check the order of classes and '
            'reduce_zero_label',
        )


def _wasted_zero(source: Source, values: Values, seen: List[int]) -> bool:
    """Whether 0 seems to be a class though it is reduced to ignored."""
    count = len(source.classes)
    return (
        source.data.reduce_zero_label
        and 0 in values.raw
        and max(v for v in values.raw if v != 255) == count - 1
        and count - 1 not in seen
    )


def _zero(source: Source, folder: str, raw: str) -> Finding:
    count = len(source.classes)
    return Finding(
        'warning',
        folder,
        f'{raw} maps with reduce_zero_label=True: label 0 is ignored, and '
        f'label 1 is trained as {source.classes[0]!r}',
        f'labels 1 to {count} for {count} classes',
        'reduce_zero_label=False if 0 is the first class',
    )
