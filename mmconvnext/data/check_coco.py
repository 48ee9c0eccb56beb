"""Judge a COCO file: all of its rows, and a sample of its images.

MMDetection numbers the categories that ``classes`` names in the order of the
file, not in that of ``classes``, and drops what it cannot use in silence.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np

from .findings import Finding, some
from .images import files_below, is_image, loaded_size, progress, spread

# list: the keys that hosts read of each of its rows
NEEDED = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
# Boxes beyond the border by no more than this are rounding.
SLACK = 1.0
# A share of boxes outside that means another convention, not a slip.
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
    """

    file: str
    content: Dict[str, List[Dict]]
    folder: str
    classes: Sequence[str]
    masks: bool
    training: bool

    def finding(self, severity: str, *words: str) -> Finding:
        return Finding(severity, self.file, *words)


def read_coco(path: str) -> Dict[str, List[Dict]]:
    """Read a COCO file whose rows have all keys that hosts read.

    Raises:
        ValueError: says what is missing.
    """
    try:
        with open(path, encoding='utf-8') as stream:
            content = json.load(stream)
    except OSError as error:
        raise ValueError(f'no readable file ({error.strerror})') from None
    except ValueError as error:
        raise ValueError(f'no JSON ({error})') from None
    for name, keys in NEEDED.items():
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f'no list {name!r}')
        for place, row in enumerate(rows):
            missing = [key for key in keys if key not in row]
            if missing:
                raise ValueError(f'no {missing[0]!r} in {name}[{place}]')
    return content


def check_coco(source: Any, limit: int) -> Iterator[Finding]:
    """Judge a data set of MMDetection's CocoDataset.

    Args:
        source: a :class:`~.sources.Source`.
        limit: of images that are opened, spread over all.
    """
    from .sources import step_of

    data = source.data
    step = step_of(source.pipeline, 'LoadAnnotations') or {}
    try:
        content = read_coco(data.ann_file)
    except ValueError as error:
        yield Finding(
            'error',
            data.ann_file,
            str(error),
            'images, annotations and categories as COCO has them',
            'python tools/new_project.py FOLDER writes such a file',
        )
        return
    folder = data.data_prefix.get('img') or data.data_prefix.get('img_path')
    yield from judge_coco(
        Coco(
            data.ann_file,
            content,
            folder or '',
            source.classes,
            bool(step.get('with_mask')),
            source.is_training,
        ),
        limit,
    )


def judge_coco(coco: Coco, limit: int) -> Iterator[Finding]:
    """Go over everything a COCO file can have wrong."""
    for judge in JUDGES:
        yield from judge(coco)
    yield from judge_files(coco, limit)


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
        near = difflib.get_close_matches(name.lower(), lower, 1)
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


def box_fault(row: Dict, image: Dict) -> str:
    """Name what is wrong with an annotation's box; empty where nothing is."""
    try:
        x, y, width, height = map(float, row['bbox'])
    except (TypeError, ValueError):
        return 'broken'
    if not np.isfinite([x, y, width, height]).all():
        return 'broken'
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


def judge_masks(coco: Coco) -> Iterator[Finding]:
    """Find objects without a mask where masks are read."""
    if not coco.masks:
        return
    sizes = {
        row['id']: [row['height'], row['width']]
        for row in coco.content['images']
    }
    kinds: Dict[Tuple[str, str], List] = {}
    for row in coco.content['annotations']:
        kind = mask_fault(row.get('segmentation'), sizes.get(row['image_id']))
        if kind:
            kinds.setdefault(kind, []).append(row['id'])
    rows = len(coco.content['annotations'])
    for (severity, words), ids in kinds.items():
        yield coco.finding(
            severity,
            f'{words} in {len(ids)} of {rows} annotations: {some(ids)}',
            'polygons of three points and more, or run lengths',
            'boxes only: with_mask=False in LoadAnnotations, no mask_head, '
            "metric='bbox'; python tools/new_project.py --task boxes"
            if severity == 'error'
            else 'add the points; such objects are ignored in training',
        )


def mask_fault(
    mask: Any, size: Optional[List[int]]
) -> Optional[Tuple[str, str]]:
    """Return severity and words for a mask that hosts cannot use."""
    if not mask:
        return 'error', 'no segmentation'
    if isinstance(mask, list):
        whole = [p for p in mask if len(p) % 2 == 0 and len(p) >= 6]
        return None if whole else ('warning', 'polygons of too few points')
    if not isinstance(mask, dict) or not mask.get('counts'):
        return 'warning', 'a segmentation that is neither'
    if size and list(mask.get('size', ())) != size:
        return 'error', f'run lengths of {mask.get("size")}, image {size}'
    return None


JUDGES: Tuple[Callable[[Coco], Iterator[Finding]], ...] = (
    judge_names,
    judge_left_out,
    judge_ids,
    judge_boxes,
    judge_masks,
)


def judge_files(coco: Coco, limit: int) -> Iterator[Finding]:
    """Compare the images listed with those in the folder, and their sizes."""
    rows = coco.content['images']
    if not os.path.isdir(coco.folder or '.'):
        yield Finding(
            'error',
            coco.folder,
            'no folder',
            'images',
            'link the folder there, or set data_root and data_prefix',
        )
        return
    there = set(files_below(coco.folder or '.'))
    gone, found = [], []
    for row in rows:
        name = os.path.normpath(str(row['file_name'])).replace(os.sep, '/')
        path = os.path.join(coco.folder, row['file_name'])
        known = name in there or os.path.isfile(path)
        (found if known else gone).append(row)
    if gone:
        yield _gone(coco, [row['file_name'] for row in gone], there)
    yield from _unlisted(coco, there)
    yield from _sizes(coco, spread(found, limit))


def _gone(coco: Coco, names: List[str], there: set) -> Finding:
    lower = {os.path.basename(path).lower(): path for path in there}
    stems = {os.path.splitext(path)[0]: path for path in lower}
    base = os.path.basename(names[0]).lower()
    near = lower.get(base) or lower.get(
        stems.get(os.path.splitext(base)[0], '')
    )
    fix = 'add the images, or correct data_prefix.img'
    if near:
        fix = f'{names[0]} is {near} there: correct file_name (case counts)'
    return Finding(
        'error',
        coco.folder or '.',
        f'{len(names)} of {len(coco.content["images"])} images of '
        f'{coco.file} are not there: {some(names)}',
        'every file_name below this folder',
        fix,
    )


def _unlisted(coco: Coco, there: set) -> Iterator[Finding]:
    listed = {row['file_name'] for row in coco.content['images']}
    bare = sorted(p for p in there - listed if is_image(p))
    if bare and coco.training:
        yield Finding(
            'warning',
            coco.folder or '.',
            f'{len(bare)} images that {coco.file} does not list: {some(bare)}',
            'a row for each image; without one it is not used',
            'label them, or leave them out',
        )
    used = {row['image_id'] for row in coco.content['annotations']}
    rows = coco.content['images']
    empty = [row['file_name'] for row in rows if row['id'] not in used]
    if empty and coco.training and len(empty) < len(rows):
        yield coco.finding(
            'warning' if len(empty) > len(rows) / 2 else 'note',
            f'{len(empty)} of {len(rows)} images without an object: '
            f'{some(empty)}',
            'objects, or truly nothing there',
            'filter_cfg=dict(filter_empty_gt=True) leaves them out',
        )


def _sizes(coco: Coco, rows: Sequence[Dict]) -> Iterator[Finding]:
    others, damaged = [], []
    for row in progress(rows, 'reading images'):
        path = os.path.join(coco.folder, row['file_name'])
        try:
            size = loaded_size(path)
        except ValueError as error:
            damaged.append(f'{path} ({error})')
            continue
        if size != (row['width'], row['height']):
            words = '{} x {}'.format(*size)
            listed = f'{row["width"]} x {row["height"]} listed'
            others.append(f'{row["file_name"]} is {words}, {listed}')
    if damaged:
        yield Finding(
            'error',
            coco.folder or '.',
            f'{len(damaged)} damaged of {len(rows)}: {some(damaged)}',
            'whole images',
            'replace them, or take them out of the file',
        )
    if others:
        yield coco.finding(
            'error',
            f'{len(others)} of {len(rows)} images of another size: '
            f'{some(others)}',
            'the size that is loaded, after EXIF rotation',
            'label the image again or correct the row: boxes would be '
            'in other places',
        )
