"""COCO JSON: images, annotations and categories in one file a split."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from ..findings import Finding
from ..labels import Folder, Item, Labels, Picture, passed_over, split_of

NAME = 'COCO JSON'


def find(folder: Folder) -> List[str]:
    """List the files that hold COCO's three lists."""
    return [p for p in folder.ending('.json') if _content(folder, p)]


def _content(folder: Folder, path: str) -> Optional[Dict]:
    try:
        content = json.loads(folder.read(path))
    except ValueError:
        return None
    keys = ('images', 'annotations', 'categories')
    fits = isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in keys
    )
    return content if fits else None


def read(folder: Folder, files: List[str]) -> Labels:
    """Read all files; categories of one name are one class."""
    names: Dict[str, int] = {}
    pictures: Dict[str, Picture] = {}
    odd: List[Finding] = []
    for file in files:
        content = _content(folder, file) or {}
        for row in sorted(content['categories'], key=_id):
            names.setdefault(str(row['name']), len(names))
        for picture in _pictures(folder, file, content, odd):
            pictures.setdefault(picture.path, picture)
    rows = [pictures[path] for path in sorted(pictures)]
    return Labels(NAME, rows, list(names), oddities=tuple(odd))


def _id(row: Dict) -> Tuple:
    return isinstance(row.get('id'), str), row.get('id')


def _pictures(
    folder: Folder, file: str, content: Dict, odd: List[Finding]
) -> List[Picture]:
    names = {row['id']: str(row['name']) for row in content['categories']}
    paths = {
        row['id']: folder.find_image(str(row.get('file_name', '')), file)
        for row in content['images']
    }
    _report_lost(file, content, paths, odd)
    items: Dict[Any, List[Item]] = {}
    for row in content['annotations']:
        item = _item(row, names)
        if item is None:
            odd.append(
                passed_over(
                    file,
                    f'annotation {row.get("id")}: category '
                    f'{row.get("category_id")}, box {row.get("bbox")}',
                    'a category of the file and a box of four numbers',
                )
            )
        elif row.get('image_id') not in paths:
            odd.append(
                passed_over(
                    file,
                    f'annotation {row.get("id")} of image '
                    f'{row.get("image_id")}, which the file does not list',
                    'the id of an image',
                )
            )
        else:
            items.setdefault(row['image_id'], []).append(item)
    sizes = folder.sizes([path for path in paths.values() if path])
    return [
        Picture(path, sizes[path], items.get(key, []), split=split_of(file))
        if split_of(file)
        else Picture(
            path, sizes[path], items.get(key, []), split=split_of(path)
        )
        for key, path in paths.items()
        if path in sizes
    ]


def _item(row: Dict, names: Dict) -> Optional[Item]:
    try:
        x, y, width, height = map(float, row['bbox'])
        name = names[row['category_id']]
    except (KeyError, TypeError, ValueError):
        return None
    mask = row.get('segmentation') or None
    crowd = bool(row.get('iscrowd'))
    return Item(name, (x, y, width, height), mask, crowd)


def _report_lost(
    file: str, content: Dict, paths: Dict, odd: List[Finding]
) -> None:
    for row in content['images']:
        if not paths[row['id']]:
            odd.append(
                passed_over(
                    file,
                    f'image {row.get("file_name")!r}, which is not there',
                    'an image of that name in the folder',
                    'add the image',
                )
            )
