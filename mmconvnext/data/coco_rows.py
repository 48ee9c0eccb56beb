"""Judge the rows of a COCO file: names, ids and boxes."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Sequence,
)

from .coco_file import NEEDED
from .findings import Finding, some

NUMBERS = {int, float}
# Boxes beyond the border by no more than this are rounding.
SLACK = 1.0
# A share of faulty rows that means another convention, not a slip.
MANY = 0.2


class Coco(NamedTuple):
    """A COCO file and how a config reads it.

    Attributes:
        file: its path.
        content: what is in it.
        folder: of its images.
        classes: of the config, in order.
        masks: whether masks are read.
        training: whether the file is trained on.
        others: files that may list images of the folder too.
        load: the step that reads the images, where it is not the usual one.
    """

    file: str
    content: Dict[str, List[Dict]]
    folder: str
    classes: Sequence[str]
    masks: bool
    training: bool
    others: Sequence[str] = ()
    load: Any = None

    def finding(self, severity: str, *words: str) -> Finding:
        return Finding(severity, self.file, *words)


def judge_names(coco: Coco) -> Iterator[Finding]:
    """Compare the categories with the classes: names, then their order."""
    names = [row['name'] for row in coco.content['categories']]
    known = [name for name in coco.classes if name in names]
    missing = [name for name in coco.classes if name not in names]
    numbered = [name for name in names if name in known]
    if missing:
        yield coco.finding(
            'error',
            f'categories {tuple(names)}: without {some(missing)}',
            f'each of classes={tuple(coco.classes)}',
            _spelling(missing, names),
        )
    elif len(numbered) != len(known):
        twice = sorted({n for n in numbered if numbered.count(n) > 1})
        yield coco.finding(
            'error',
            f'categories of one name: {some(twice)}',
            'every name once',
            'give both the same id and keep one',
        )
    elif numbered != list(coco.classes):
        yield coco.finding(
            'error',
            f'categories in the order {tuple(numbered)}',
            f'the order of classes={tuple(coco.classes)}: hosts number them '
            'as they are in the file, so names would be exchanged',
            f'classes={tuple(numbered)} in metainfo',
        )


def _spelling(missing: Sequence[str], names: Sequence[str]) -> str:
    """Name the categories that are spelt nearly alike."""
    lower = {str(name).lower(): name for name in names}
    pairs = []
    for name in missing:
        near = difflib.get_close_matches(str(name).lower(), lower, 1)
        if near:
            pairs.append(f'{name!r} -> {lower[near[0]]!r}')
    if pairs:
        return f'correct the spelling in classes: {some(pairs)}'
    return f'classes={tuple(names)} in metainfo, if these are yours'


def judge_left_out(coco: Coco) -> Iterator[Finding]:
    """Count the annotations of categories that no class names."""
    names = {row['id']: row['name'] for row in coco.content['categories']}
    left: Dict[str, int] = {}
    for row in coco.content['annotations']:
        name = names.get(row['category_id'])
        if name is not None and name not in coco.classes:
            left[name] = left.get(name, 0) + 1
    if left:
        words = [f'{name} ({number})' for name, number in left.items()]
        yield coco.finding(
            'warning',
            f'annotations of categories that are no class: {some(words)}',
            f'categories among classes={tuple(coco.classes)}',
            'nothing if they shall be left out; else add them to classes',
        )


def judge_ids(coco: Coco) -> Iterator[Finding]:
    """Find ids given twice, and references to what is not there."""
    for name in NEEDED:
        counts = Counter(row['id'] for row in coco.content[name])
        twice = [each for each, number in counts.items() if number > 1]
        if twice:
            yield coco.finding(
                'error',
                f'{name} that share an id: {some(twice)}',
                f'every id once among {name}',
                'number them again',
            )
    yield from _listed_twice(coco)
    for key, name in (('image_id', 'images'), ('category_id', 'categories')):
        known = {row['id'] for row in coco.content[name]}
        rows = coco.content['annotations']
        lost = [row['id'] for row in rows if row[key] not in known]
        if lost:
            yield coco.finding(
                'error' if len(lost) == len(rows) else 'warning',
                f'{len(lost)} of {len(rows)} annotations whose {key} is not '
                f'among {name}: {some(lost)}',
                f'an id of {name}',
                f'correct {key}; such annotations are left out in silence',
            )


def _listed_twice(coco: Coco) -> Iterator[Finding]:
    counts = Counter(row['file_name'] for row in coco.content['images'])
    twice = [each for each, number in counts.items() if number > 1]
    if twice:
        yield coco.finding(
            'warning',
            f'images with several rows: {some(twice)}',
            'one row an image: the objects of one row are background in the '
            'other',
            'put all annotations of an image under one id',
        )


def judge_boxes(coco: Coco) -> Iterator[Finding]:
    """Find boxes that are no boxes, empty, outside, or half outside."""
    images = {row['id']: row for row in coco.content['images']}
    kinds: Dict[str, List[str]] = {}
    usable = 0
    for row in coco.content['annotations']:
        if row['image_id'] in images:
            kind = box_fault(row, images[row['image_id']])
            usable += kind in ('', 'partly') and not row.get('iscrowd')
            if kind:
                kinds.setdefault(kind, []).append(_box(row, images))
    rows = len(coco.content['annotations'])
    for kind, found in kinds.items():
        expected, fix = BOX_FAULTS[kind]
        fatal = kind == 'broken' or len(found) > MANY * rows
        yield coco.finding(
            'error' if fatal else 'warning',
            f'{len(found)} of {rows} boxes {WORDS[kind]}: {some(found)}',
            expected,
            fix,
        )
    if not usable and not any(len(f) == rows for f in kinds.values()):
        yield _nothing(coco)


WORDS = {
    'broken': 'that are not four finite numbers',
    'empty': 'narrower than a pixel',
    'outside': 'outside of their image',
    'partly': 'that reach beyond their image',
}
# kind: what is expected, what to do
BOX_FAULTS = {
    'broken': ('[x, y, width, height]', 'correct or remove them'),
    'empty': (
        'width and height of a pixel or more, and an area above 0; smaller '
        'ones are left out in silence',
        'boxes are pixels, not shares of the image; remove empty ones',
    ),
    'outside': (
        '[x, y, width, height] in pixels of the image; these are left out '
        'in silence',
        'correct them: is it the size of another image, or [x1, y1, x2, y2]?',
    ),
    'partly': (
        'x + width and y + height inside of the image',
        'cut them at the border; are they [x1, y1, x2, y2]?',
    ),
}


def are_numbers(values: Any) -> bool:
    """Whether it is a list of finite numbers; a text of digits is none."""
    if not isinstance(values, list) or not set(map(type, values)) <= NUMBERS:
        return False
    return math.isfinite(sum(values))


def box_fault(row: Dict, image: Dict) -> str:
    """Name what is wrong with an annotation's box; empty where nothing is."""
    if not are_numbers(row['bbox']) or len(row['bbox']) != 4:
        return 'broken'
    x, y, width, height = row['bbox']
    if width < 1 or height < 1 or not row['area'] > 0:
        return 'empty'
    right, bottom = image['width'], image['height']
    if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
        return 'outside'
    beyond = max(-x, -y, x + width - right, y + height - bottom)
    return 'partly' if beyond > SLACK else ''


def _box(row: Dict, images: Dict) -> str:
    image = images[row['image_id']]
    size = f'{image["width"]} x {image["height"]}'
    return f'{row["bbox"]} in {image["file_name"]} ({size})'


def _nothing(coco: Coco) -> Finding:
    return coco.finding(
        'error',
        f'{len(coco.content["images"])} images and no object that can be '
        f'{"trained on" if coco.training else "tested with"}',
        'labelled objects of the classes',
        'is it the file of another split, or are all of them crowds?',
    )
