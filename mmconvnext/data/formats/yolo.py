"""YOLO text: a file for each image, a row for each box or polygon.

``class x y width height`` or ``class x y x y x y ...``, in shares of the
image's width and height, classes counted from 0.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

from ..findings import Finding
from ..labels import (
    Folder,
    Item,
    Labels,
    Picture,
    corner_box,
    passed_over,
    split_of,
    stem_of,
)
from .names import given_names

NAME = 'YOLO text'
# Rows that begin so are looked at before a file counts as YOLO's.
LOOKED_AT = 5


def find(folder: Folder) -> List[str]:
    """List the text files that have an image's name and rows of numbers."""
    stems = {stem_of(path) for path in folder.images}
    files = [p for p in folder.ending('.txt') if stem_of(p) in stems]
    filled = [path for path in files if _rows(folder, path)]
    if filled and all(
        row is not None
        for path in filled[:LOOKED_AT]
        for row in map(numbers, _rows(folder, path)[:LOOKED_AT])
    ):
        return files
    return []


def _rows(folder: Folder, path: str) -> List[str]:
    lines = folder.read(path).splitlines()
    return [line for line in lines if line.strip()]


def numbers(line: str) -> Optional[Tuple[int, List[float]]]:
    """Read a row: the class and its shares; None where it is none."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    count = len(values) - 1
    # A sixth number is a score or a track.
    if count not in (4, 5) and (count < 6 or count % 2):
        return None
    if values[0] != int(values[0]) or values[0] < 0:
        return None
    return int(values[0]), values[1:5] if count == 5 else values[1:]


def read(folder: Folder, files: List[str]) -> Labels:
    """Read all files; names come from data.yaml, classes.txt or the like."""
    odd: List[Finding] = []
    labels = {}
    for file in files:
        path = folder.find_image(file, file)
        if path:
            labels[path] = file
    sizes = folder.sizes(list(labels))
    rows = {
        path: _read_rows(folder, file, odd)
        for path, file in labels.items()
        if path in sizes
    }
    highest = max([i for r in rows.values() for i, _ in r], default=-1)
    names, named = _names(folder, highest, odd)
    pictures = [
        Picture(
            path,
            sizes[path],
            [_item(names[i], shares, sizes[path]) for i, shares in found],
            split=split_of(labels[path]) or split_of(path),
        )
        for path, found in sorted(rows.items())
    ]
    return Labels(NAME, pictures, names, named, tuple(odd))


def _read_rows(
    folder: Folder, file: str, odd: List[Finding]
) -> List[Tuple[int, List[float]]]:
    found = []
    for line in _rows(folder, file):
        row = numbers(line)
        if row is None or max(map(abs, row[1])) > 2:
            odd.append(
                passed_over(
                    file,
                    f'the row {line[:60]!r}',
                    'a class and shares of the image between 0 and 1',
                )
            )
        else:
            found.append(row)
    return found


def _item(name: str, shares: List[float], size: Tuple[int, int]) -> Item:
    scaled = [s * size[i % 2] for i, s in enumerate(shares)]
    if len(shares) == 4:
        x, y, width, height = scaled
        return Item(name, (x - width / 2, y - height / 2, width, height))
    return Item(name, corner_box(scaled), [scaled])


def _names(
    folder: Folder, highest: int, odd: List[Finding]
) -> Tuple[List[str], bool]:
    names, file = given_names(folder)
    made = [f'class_{i + 1}' for i in range(len(names), highest + 1)]
    if made and names:
        odd.append(
            passed_over(
                file,
                f'{len(names)} names, and labels up to {highest}',
                'a name for each class',
                f'add names; until then they are {", ".join(made)}',
            )
        )
    return names + made, bool(names)
