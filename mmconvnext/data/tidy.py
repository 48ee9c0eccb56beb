"""Make labels usable: names as wished, boxes inside, the rest reported."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

from .findings import Finding, some
from .labels import Folder, Item, Labels, Picture, Wishes, passed_over

SLACK = 1.0  # pixels beyond the border that are rounding
FEW = 10  # objects or images of a class that are too few to learn from


class Trouble(Dict[str, List[str]]):
    """Files by what is wrong with a label in them."""

    def note(self, kind: str, file: str) -> None:
        self.setdefault(kind, []).append(file)


# kind: severity, what is expected, what was done or is to do
KINDS = {
    'a box outside of its image': (
        'warning',
        'boxes in pixels of their image',
        'left out; is the label of another image, or of another size?',
    ),
    'a box that reaches beyond its image': (
        'warning',
        'boxes inside of their image',
        'cut at the border',
    ),
    'a box narrower than a pixel': (
        'warning',
        'boxes of a pixel or more',
        'left out',
    ),
}


def tidy(folder: Folder, labels: Labels, wishes: Wishes) -> Labels:
    """Apply the wishes and correct what can be corrected.

    Raises:
        ValueError: for names that no label has, or when nothing is left.
    """
    labels = renamed(labels, wishes)
    trouble = Trouble()
    pictures = [_inside(picture, trouble) for picture in labels.pictures]
    odd = [*labels.oddities, *_grouped(trouble), *_oddities(folder, labels)]
    labels = labels._replace(pictures=pictures, oddities=tuple(odd))
    if not any(p.items or p.map for p in pictures):
        first = f'; the first fault: {odd[0]}' if odd else ''
        raise ValueError(
            f'{folder.root}: {len(pictures)} images ({labels.format}) and '
            f'no object that can be used{first}'
        )
    return labels


def renamed(labels: Labels, wishes: Wishes) -> Labels:
    """Rename classes, then keep and order those that were asked for."""
    unknown = sorted(set(wishes.rename) - set(labels.classes))
    if unknown:
        raise ValueError(
            f'--rename {some(unknown)}: no such class; there are '
            f'{some(labels.classes, 20)}'
        )
    new = {name: wishes.rename.get(name, name) for name in labels.classes}
    if wishes.classes and not labels.maps:
        new = _chosen(labels, wishes, new)
    elif labels.maps and wishes.rename:
        return _merged(labels, new)
    names = list(wishes.classes) or list(dict.fromkeys(new.values()))
    if labels.maps:
        return labels
    pictures = [
        p._replace(
            items=[
                item._replace(name=new[item.name])
                for item in p.items
                if item.name in new
            ]
        )
        if p.items is not None
        else p
        for p in labels.pictures
    ]
    return labels._replace(pictures=pictures, classes=names)


def _chosen(labels: Labels, wishes: Wishes, new: Dict) -> Dict[str, str]:
    """Match ``--classes`` with the names there are."""
    wanted, known = wishes.classes, list(dict.fromkeys(new.values()))
    if not labels.named and len(wanted) >= len(known):
        return dict(zip(labels.classes, wanted))
    lost = [name for name in wanted if name not in known]
    if lost:
        raise ValueError(
            f'--classes {some(lost)}: no label has this name; there are '
            f'{some(known, 20)}'
        )
    return {old: name for old, name in new.items() if name in wanted}


def _merged(labels: Labels, new: Dict[str, str]) -> Labels:
    """Give the values of renamed classes of maps the class they go to."""
    names = list(dict.fromkeys(new.values()))
    index = {
        i: names.index(new[name]) for i, name in enumerate(labels.classes)
    }
    maps = labels.maps
    colours = {names.index(new[n]): c for n, c in zip(new, maps.palette)}
    maps = maps._replace(
        classes={value: index[i] for value, i in maps.classes.items()},
        palette=[colours[i] for i in range(len(names))],
    )
    return labels._replace(classes=names, maps=maps)


def _inside(picture: Picture, trouble: Trouble) -> Picture:
    if picture.items is None:
        return picture
    items = [_cut(item, picture, trouble) for item in picture.items]
    return picture._replace(items=[item for item in items if item])


def _cut(item: Item, picture: Picture, trouble: Trouble) -> Optional[Item]:
    """Cut an object at the border; None where nothing of it is left."""
    width, height = picture.size
    x, y, w, h = item.box
    right, bottom = min(x + w, width), min(y + h, height)
    left, top = max(x, 0.0), max(y, 0.0)
    if not np.isfinite(item.box).all() or w < 1 or h < 1:
        trouble.note('a box narrower than a pixel', picture.path)
        return None
    if right - left < 1 or bottom - top < 1:
        trouble.note('a box outside of its image', picture.path)
        return None
    if max(-x, -y, x + w - width, y + h - height) > SLACK:
        trouble.note('a box that reaches beyond its image', picture.path)
    box = (left, top, right - left, bottom - top)
    return item._replace(box=box, mask=_cut_mask(item.mask, width, height))


def _cut_mask(mask: object, width: int, height: int) -> object:
    if not isinstance(mask, list):
        return mask
    limits = np.array([width, height], float)
    whole = [p for p in mask if len(p) >= 6 and len(p) % 2 == 0]
    cut = [
        np.clip(np.reshape(p, (-1, 2)), 0, limits).ravel().tolist()
        for p in whole
    ]
    return cut or None


def _grouped(trouble: Trouble) -> Iterator[Finding]:
    for kind, files in trouble.items():
        severity, expected, fix = KINDS[kind]
        number = f'{kind}, {len(files)} in all'
        yield Finding(severity, some(_unique(files)), number, expected, fix)


def _unique(files: List[str]) -> List[str]:
    return list(dict.fromkeys(files))


def _oddities(folder: Folder, labels: Labels) -> Iterator[Finding]:
    if folder.damaged:
        names = [f'{path} ({why})' for path, why in folder.damaged.items()]
        yield passed_over(
            str(folder.root),
            f'{len(names)} damaged images: {some(names)}',
            'whole images',
            'left out; replace them',
        )
    counts = class_counts(labels)
    for names in _spelt_twice(labels.classes):
        names = sorted(names, key=lambda name: -counts[name][0])
        first = names[0]
        words = ' '.join(f'"{name}={first}"' for name in names[1:])
        yield passed_over(
            str(folder.root),
            f'classes {", ".join(map(repr, names))}',
            'one spelling of a class',
            f'if they are one: --rename {words}',
        )
    bare = [p.path for p in labels.pictures if not p.labelled]
    if bare:
        yield passed_over(
            str(folder.root),
            f'{len(bare)} images without a label: {some(bare)}',
            'a label for each image',
            'left out; label them, or pre-train on them (FCMAE)',
        )
    yield from _rare(folder, labels)


def _spelt_twice(names: List[str]) -> Iterator[List[str]]:
    groups: Dict[str, List[str]] = {}
    for name in names:
        key = re.sub(r'[\s_\-.]+', '', name).casefold()
        groups.setdefault(key, []).append(name)
    yield from (group for group in groups.values() if len(group) > 1)


def _rare(folder: Folder, labels: Labels) -> Iterator[Finding]:
    counts = class_counts(labels)
    rare = [
        f'{name} ({number})'
        for name, (number, _) in counts.items()
        if number < FEW
    ]
    if rare:
        what = 'images with' if labels.maps else 'objects of'
        yield passed_over(
            str(folder.root),
            f'few {what} {some(rare)}',
            f'{FEW} and more of each class',
            'label more, or leave the class out with --classes',
        )


def class_counts(labels: Labels) -> Dict[str, Tuple[int, float]]:
    """Count by class: objects and images, or for maps images and pixels."""
    if labels.maps:
        return _map_counts(labels)
    rows = {name: [0, set()] for name in labels.classes}
    for picture in labels.pictures:
        for item in picture.items or ():
            rows[item.name][0] += 1
            rows[item.name][1].add(picture.path)
    return {n: (count, len(paths)) for n, (count, paths) in rows.items()}


def _map_counts(labels: Labels) -> Dict[str, Tuple[int, float]]:
    images = dict.fromkeys(labels.classes, 0)
    pixels = dict.fromkeys(labels.classes, 0)
    for counts in labels.maps.counts.values():
        present = set()
        for value, number in counts.items():
            index = labels.maps.classes.get(value)
            if index is not None:
                pixels[labels.classes[index]] += number
                present.add(labels.classes[index])
        for name in present:
            images[name] += 1
    return {name: (images[name], pixels[name]) for name in labels.classes}
