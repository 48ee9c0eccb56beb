"""Pascal VOC: an XML file for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Dict, List, NamedTuple, Optional, Tuple

from ..findings import Finding
from ..labels import Folder, Item, Labels, Picture, passed_over, split_of

NAME = 'Pascal VOC XML'
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


class Row(NamedTuple):
    """An object as its file has it: corners, counted from 0 or from 1."""

    name: str
    corners: Tuple[float, ...]


def find(folder: Folder) -> List[str]:
    """List the XML files whose root is ``annotation``."""
    return [p for p in folder.ending('.xml') if _root(folder, p) is not None]


def _root(folder: Folder, path: str) -> Optional[ElementTree.Element]:
    try:
        root = ElementTree.parse(folder.root / path).getroot()
    except (ElementTree.ParseError, OSError):
        return None
    return root if root.tag == 'annotation' else None


def read(folder: Folder, files: List[str]) -> Labels:
    """Read all files.

    VOC counts pixels from 1 and includes the last; most programs that write
    its format count from 0. A box that begins at 0 shows which it is.
    """
    odd: List[Finding] = []
    rows: Dict[str, Tuple[str, List[Row]]] = {}
    for file in files:
        root = _root(folder, file)
        name = root.findtext('filename') or ''
        path = folder.find_image(name, file) if name else None
        path = path or folder.find_image(file, file)
        if path is None:
            odd.append(
                passed_over(
                    file,
                    f'image {name!r}, which is not there',
                    'an image of that name in the folder',
                    'add the image',
                )
            )
            continue
        rows[path] = file, _objects(file, root, odd)
    mins = [
        side
        for _, objects in rows.values()
        for row in objects
        for side in row.corners[:2]
    ]
    first = 1 if mins and min(mins) >= 1 else 0
    splits, sizes = _splits(folder), folder.sizes(list(rows))
    pictures = [
        Picture(
            path,
            sizes[path],
            [_item(row, first) for row in objects],
            split=splits.get(_stem(file)) or split_of(file) or split_of(path),
        )
        for path, (file, objects) in sorted(rows.items())
        if path in sizes
    ]
    names = sorted({i.name for p in pictures for i in p.items})
    return Labels(NAME, pictures, names, oddities=tuple(odd))


def _objects(
    file: str, root: ElementTree.Element, odd: List[Finding]
) -> List[Row]:
    rows = []
    for node in root.iter('object'):
        name = (node.findtext('name') or '').strip()
        try:
            box = [float(node.findtext(f'bndbox/{side}')) for side in SIDES]
        except (TypeError, ValueError):
            box = []
        if name and box:
            rows.append(Row(name, tuple(box)))
        else:
            odd.append(
                passed_over(
                    file,
                    f'an object {name!r} without a whole bndbox',
                    f'a name and {", ".join(SIDES)}',
                )
            )
    return rows


def _item(row: Row, first: int) -> Item:
    left, top, right, bottom = row.corners
    left, top = left - first, top - first
    return Item(row.name, (left, top, right - left, bottom - top))


def _stem(path: str) -> str:
    return path.rsplit('/', 1)[-1].rsplit('.', 1)[0]


def _splits(folder: Folder) -> Dict[str, str]:
    """Read ImageSets/Main/{train,val,test}.txt, one image a line."""
    found: Dict[str, str] = {}
    for file in folder.ending('.txt'):
        split = _stem(file).lower()
        if 'ImageSets' in file and split in ('train', 'val', 'test'):
            for line in folder.read(file).splitlines():
                if line.strip():
                    found.setdefault(line.split()[0], split)
    return found
