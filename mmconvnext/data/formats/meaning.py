"""What the values of label maps mean: classes, background, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from ..findings import Finding, some
from ..labels import Folder, Maps, Wishes, passed_over
from .names import colour_table, given_names

IGNORED = 255
# Names that mean no class.
VOID = ('void', 'unlabelled', 'unlabeled', 'ignore', 'ignored', 'unknown')


class Zero(NamedTuple):
    """Whether label 0 is a class, and why."""

    is_class: bool
    reason: str


def meaning(
    folder: Folder,
    counts: Dict[str, Dict[int, int]],
    coloured: bool,
    wishes: Wishes,
    pairs: Sequence[Any],
    odd: List[Finding],
) -> Tuple[Maps, List[str], bool]:
    """Give each value its class.

    Args:
        folder: where names and colours are looked for.
        counts: pixels by value, for each map.
        coloured: whether the values are colours.
        wishes: of the user.
        pairs: of images and maps; their paths show the layout.
        odd: findings are added here.

    Returns:
        The maps, the names of the classes, and whether they were given.

    Raises:
        ValueError: when fewer than two classes are left.
    """
    total: Counter = Counter()
    for each in counts.values():
        total.update(each)
    table, file = colour_table(folder)
    if coloured and table:
        classes, names, zero = _by_table(table, total, wishes, odd, file)
        named = True
    else:
        given = list(wishes.classes) or given_names(folder)[0]
        classes, names, zero = _by_index(
            total, given, coloured, wishes.zero, pairs
        )
        named = bool(given)
    if len(names) < 2:
        raise ValueError(
            f'{folder.root}: label maps with the values '
            f'{some(sorted(total), 8)}: {zero.reason}; this leaves '
            f'{names or "no class"}, and training needs two classes. Label '
            'the rest as a class, or pass --zero class'
        )
    palette = _palette(classes, names, coloured, table)
    words = 'a class' if zero.is_class else 'ignored'
    text = f'{words}: {zero.reason}' if 0 in total else ''
    return Maps(classes, coloured, palette, counts, text), names, named


def _by_table(
    table: Dict, total: Counter, wishes: Wishes, odd: List[Finding], file: str
) -> Tuple[Dict[int, int], List[str], Zero]:
    """Give classes to the colours of a table; those unknown are ignored."""
    names: List[str] = []
    classes: Dict[int, int] = {}
    zero = Zero(True, f'{file} names its colour')
    for colour, name in table.items():
        value = 65536 * colour[0] + 256 * colour[1] + colour[2]
        void = name.lower() in VOID
        if void or (value == 0 and wishes.zero == 'ignore'):
            if value == 0:
                zero = Zero(False, f'{file} calls it {name}')
            continue
        if name not in names:
            names.append(name)
        classes[value] = names.index(name)
    known = {65536 * r + 256 * g + b for r, g, b in table}
    lost = sorted(value for value in total if value not in known)
    if lost:
        colours = [_rgb(value) for value in lost]
        odd.append(
            passed_over(
                file,
                f'no row for {some(colours)} of the maps: ignored',
                'a row for each colour',
                'add the colours',
            )
        )
    return classes, names, zero


def _by_index(
    total: Counter,
    given: List[str],
    coloured: bool,
    wish: str,
    pairs: Sequence[Any],
) -> Tuple[Dict[int, int], List[str], Zero]:
    """Give classes to values in their order."""
    values = sorted(total)
    if set(values) <= {0, IGNORED} and len(values) == 2:
        reason = 'the maps hold 0 and 255: 255 is a class, not ignored'
        names = given if len(given) == 2 else ['background', *given[:1]]
        names = names if len(names) == 2 else ['background', 'class_1']
        if wish != 'ignore':
            return {0: 0, 255: 1}, names, Zero(True, reason)
    elif not coloured:
        values = [value for value in values if value != IGNORED]
    zero = _zero(values, given, wish, pairs)
    kept = [value for value in values if value or zero.is_class]
    if not coloured and given and max(kept, default=0) < _room(given, zero):
        first = 0 if zero.is_class else 1
        return {v: v - first for v in _all(given, first)}, given, zero
    names = _made_up(kept, given, zero, coloured)
    return {value: i for i, value in enumerate(kept)}, names, zero


def _room(given: List[str], zero: Zero) -> int:
    return len(given) + (not zero.is_class)


def _all(given: List[str], first: int) -> range:
    return range(first, len(given) + first)


def _made_up(
    kept: List[int], given: List[str], zero: Zero, coloured: bool
) -> List[str]:
    """Name values for which there are not names enough, or too many."""
    if len(given) == len(kept):
        return given
    # One more than was named: what is not the object.
    if len(given) == len(kept) - 1 and kept[:1] == [0]:
        return ['background', *given]
    if given:
        raise ValueError(
            f'{len(given)} names of classes ({some(given)}), and label maps '
            f'with {len(kept)} values ({some(kept, 8)}); give one name for '
            'each value with --classes, in the order of the values'
        )
    numbers = range(len(kept)) if coloured else kept
    return [
        'background' if value == 0 else f'class_{number or i + 1}'
        for i, (value, number) in enumerate(zip(kept, numbers))
    ]


def _zero(
    values: List[int], given: List[str], wish: str, pairs: Sequence[Any]
) -> Zero:
    """Decide whether 0 is a class, and say why."""
    others = [value for value in values if value]
    if wish:
        return Zero(wish == 'class', f'--zero {wish}')
    if len(others) < 2:
        return Zero(True, 'one other label alone has nothing to differ from')
    if given and max(others) == len(given):
        return Zero(False, f'{len(given)} names for labels 1 to {len(given)}')
    if given:
        return Zero(True, f'{len(given)} names for labels 0 to {max(others)}')
    if all(_is_ade20k(pair) for pair in pairs):
        return Zero(
            False,
            'the folder is laid out as ADE20K, where 0 is unlabelled (or '
            'pass --zero class)',
        )
    return Zero(True, 'nothing says otherwise (or pass --zero ignore)')


def _is_ade20k(pair: Any) -> bool:
    pattern = r'(^|/){}/(training|validation)/'
    return bool(
        re.search(pattern.format('images'), pair.image)
        and re.search(pattern.format('annotations'), pair.map)
    )


def _rgb(value: int) -> Tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255


def _palette(
    classes: Dict[int, int],
    names: List[str],
    coloured: bool,
    table: Dict[Tuple[int, int, int], str],
) -> List[Tuple[int, int, int]]:
    """Take the colours of the maps or of a table; make up the rest."""
    from ..palette import colours

    made = colours(len(names))
    if coloured:
        for value, index in classes.items():
            made[index] = _rgb(value)
        return made
    known = {name: colour for colour, name in table.items()}
    return [known.get(name, colour) for name, colour in zip(names, made)]
