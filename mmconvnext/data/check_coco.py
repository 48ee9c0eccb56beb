"""Judge a COCO file: all of its rows, and a sample of its images.

MMDetection numbers the categories that ``classes`` names in the order of the
file, not in that of ``classes``, and drops what it cannot use in silence.
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from .coco_file import read_coco
from .coco_masks import judge_masks
from .coco_rows import (
    Coco,
    judge_boxes,
    judge_ids,
    judge_left_out,
    judge_names,
)
from .findings import Finding, some
from .images import files_below, is_image, loaded_size, progress, spread
from .sources import Source, own_reader, step_of

JUDGES: Tuple[Callable[[Coco], Iterator[Finding]], ...] = (
    judge_names,
    judge_left_out,
    judge_ids,
    judge_boxes,
    judge_masks,
)


def check_coco(
    source: Source, limit: int, family: Sequence[Source] = ()
) -> Iterator[Finding]:
    """Judge a data set of MMDetection's CocoDataset.

    Args:
        source: a data set that reads as CocoDataset does.
        limit: of images that are opened, spread over all.
        family: all data sets of the config; their files may list images of
            the same folder.
    """
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
    others = {getattr(each.data, 'ann_file', '') for each in family}
    yield from judge_coco(
        Coco(
            data.ann_file,
            content,
            folder or '',
            source.classes,
            bool(step.get('with_mask')),
            source.is_training,
            sorted(others - {data.ann_file, ''}),
            own_reader(source.pipeline),
        ),
        limit,
    )


def judge_coco(coco: Coco, limit: int) -> Iterator[Finding]:
    """Go over everything a COCO file can have wrong."""
    for judge in JUDGES:
        yield from judge(coco)
    yield from judge_files(coco, limit)


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
    # A path that Windows wrote has other slashes.
    base = os.path.basename(names[0].replace('\\', '/')).lower()
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
        bare = sorted(set(bare) - _listed(coco.others))
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


def _listed(files: Sequence[str]) -> set:
    found: set = set()
    for file in files:
        with contextlib.suppress(ValueError):  # reported with its own loader
            rows = read_coco(file)['images']
            found.update(row['file_name'] for row in rows)
    return found


def _sizes(coco: Coco, rows: Sequence[Dict]) -> Iterator[Finding]:
    others, damaged = [], []
    for row in progress(rows, 'reading images'):
        path = os.path.join(coco.folder, row['file_name'])
        try:
            size = loaded_size(path, coco.load)
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
