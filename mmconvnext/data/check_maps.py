"""Judge label maps: the files, their pairs, and the values inside.

Values are read by the host's own loading step, so that they are those a model
would be trained on: zero reduced, classes mapped, 255 ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..files import EXTENSIONS
from .findings import Finding, some
from .images import (
    files_below,
    is_image,
    loaded_size,
    progress,
    spread,
    suffixes,
)
from .map_files import judge_map, read_raw
from .map_values import Values, judge_values
from .sources import Source, own_reader, step_of

LOSSY = ('.jpg', '.jpeg')


def check_maps(
    source: Source, limit: int, family: Sequence[Source] = ()
) -> Iterator[Finding]:
    """Judge a data set of MMSegmentation.

    Args:
        source: a data set of the BaseSegDataset family.
        limit: of label maps that are opened, spread over all.
        family: not needed here; lists name the images of a split.
    """
    data = source.data
    folder = data.data_prefix.get('img_path') or ''
    if not os.path.isdir(folder) and not data.ann_file:
        yield _no_folder(folder)
        return
    rows = data.load_data_list()
    if data.ann_file:
        faults = list(_list_faults(data, rows))
        yield from faults
        if faults:
            return
    if not rows:
        yield _no_images(folder, data.img_suffix)
        return
    yield from _passed_over(source, folder, rows)
    yield from _pairs(source, rows)
    paired = [row for row in rows if _has_map(row)]
    if paired:
        yield from _contents(source, spread(paired, limit), len(paired))


def _no_folder(folder: str) -> Finding:
    return Finding(
        'error',
        folder or '(no folder)',
        'no folder',
        'images',
        'link the folder there, or set data_root and data_prefix',
    )


def _list_faults(data: Any, rows: List[Dict]) -> Iterator[Finding]:
    """Find a list that names no images, or not those that are there."""
    paths = [row['img_path'] for row in rows]
    gone = [path for path in paths if not os.path.isfile(path)]
    if rows and not gone:
        return
    yield Finding(
        'error',
        data.ann_file,
        f'{len(gone)} of {len(rows)} images it lists are not there: '
        f'{some([repr(path) for path in gone])}'
        if rows
        else 'a list without a name',
        f'a name a line, without {data.img_suffix!r}, no blank lines, UTF-8 '
        'without a byte order mark',
        'correct the list, img_suffix or data_prefix.img_path',
    )


def _no_images(folder: str, suffix: str) -> Finding:
    others = suffixes(path for path in files_below(folder) if is_image(path))
    found = ', '.join(f'{n} x {name}' for name, n in others.items())
    return Finding(
        'error',
        folder,
        f'no image that ends in {suffix}; {found or "no image at all"}',
        f'images that end in img_suffix={suffix!r} (case counts)',
        f'img_suffix={next(iter(others))!r} in the data set'
        if len(others) == 1
        else 'rename the images, or tools/new_project.py makes them one kind'
        if others
        else 'put images there, or correct data_prefix.img_path',
    )


def _passed_over(
    source: Source, folder: str, rows: List[Dict]
) -> Iterator[Finding]:
    """Find images that the suffix leaves out: .JPG beside .jpg."""
    data = source.data
    suffix = data.img_suffix
    # Another ending, as _leftImg8bit.png: the rest is something else.
    if data.ann_file or suffix.lower() not in EXTENSIONS:
        return
    if _inside(data.data_prefix.get('seg_map_path'), folder):
        return
    images = [p for p in files_below(folder) if is_image(p)]
    left = [path for path in images if not path.endswith(suffix)]
    if left:
        yield Finding(
            'error' if len(left) > len(rows) else 'warning',
            folder,
            f'{len(left)} images that the config passes over: {some(left)}',
            f'every image to end in img_suffix={suffix!r} (case counts)',
            f'rename them to *{suffix}, or let tools/new_project.py do so',
        )


def _inside(inner: Optional[str], outer: str) -> bool:
    parts = Path(os.path.abspath(inner or outer)).parts
    around = Path(os.path.abspath(outer)).parts
    return parts[: len(around)] == around


def _has_map(row: Dict) -> bool:
    return os.path.isfile(row.get('seg_map_path') or '')


def _pairs(source: Source, rows: List[Dict]) -> Iterator[Finding]:
    """Compare the names of images with those of label maps."""
    folder = source.data.data_prefix.get('seg_map_path')
    if not folder:
        return
    bare = [row['img_path'] for row in rows if not _has_map(row)]
    known = {os.path.normpath(row['seg_map_path']) for row in rows}
    below = [p for p in files_below(folder) if is_image(p)]
    alone = [
        path
        for path in below
        if os.path.normpath(os.path.join(folder, path)) not in known
    ]
    suffix = source.data.seg_map_suffix
    if bare:
        yield Finding(
            'error',
            folder,
            f'no label map for {len(bare)} of {len(rows)} images: '
            f'{some([os.path.basename(path) for path in bare])}'
            + (f'; there is {some(alone)}' if alone else ''),
            f'a map of the same name that ends in {suffix!r}',
            _suffix_hint(bare, alone)
            or 'add the maps, or move the images away',
        )
        return
    alone = [path for path in alone if path.endswith(suffix)]
    if alone and not source.data.ann_file:
        yield Finding(
            'warning',
            folder,
            f'{len(alone)} label maps without an image: {some(alone)}',
            'an image of the same name',
            'add the images, or move the maps away',
        )


def _suffix_hint(bare: List[str], alone: List[str]) -> str:
    """Guess seg_map_suffix from a map that begins like an image."""
    for image in bare:
        stem = Path(image).stem
        for path in alone:
            name = os.path.basename(path)
            if name.startswith(stem):
                return f'seg_map_suffix={name[len(stem) :]!r} in the data set'
    return ''


def _contents(
    source: Source, rows: List[Dict], total: int
) -> Iterator[Finding]:
    """Open the sample: sizes and modes of each, then values of all."""
    from mmengine.registry import TRANSFORMS

    step = step_of(source.pipeline, 'LoadAnnotations')
    if step is None:
        yield _unread(source)
        return
    if source.data.seg_map_suffix.lower() in LOSSY:
        yield _lossy(source)
    load = TRANSFORMS.build(dict(step))
    read_image = own_reader(source.pipeline)
    values = Values(Counter(), Counter(), {}, len(rows))
    faults: List[Finding] = []
    for row in progress(rows, 'reading label maps'):
        fault = _read(row, load, read_image, values)
        if fault:
            faults.append(fault)
        if fault and fault.file == '':  # a setting, the same for all
            break
    yield from _grouped(source, faults)
    if values.trained:
        yield from judge_values(source, values, total)


def _lossy(source: Source) -> Finding:
    return Finding(
        'warning',
        source.data.data_prefix.get('seg_map_path') or '',
        f'label maps as {source.data.seg_map_suffix}',
        'PNG: JPEG changes values near borders, and they become other classes',
        'make the maps again as PNG',
    )


def _unread(source: Source) -> Finding:
    return Finding(
        'note',
        source.loader,
        'a pipeline without LoadAnnotations',
        'a step that is known here',
        'the values of these label maps were not checked',
    )


def _read(
    row: Dict, load: Any, read_image: Any, values: Values
) -> Optional[Finding]:
    """Count a map's values; return what is wrong with the file itself."""
    path = row['seg_map_path']
    try:
        size = loaded_size(row['img_path'], read_image)
    except ValueError as error:
        return _damaged(row['img_path'], error)
    try:
        raw = read_raw(path)
    except ValueError as error:
        return _damaged(path, error)
    fault = judge_map(path, raw, size)
    if fault:
        return fault
    try:
        label = load(dict(row, seg_fields=[]))['gt_seg_map']
    except Exception as error:  # the host's settings disagree
        return _refused(error)
    _count(raw, values.raw)
    for value in _count(np.asarray(label), values.trained):
        values.where.setdefault(value, path)
    return None


def _damaged(path: str, error: Exception) -> Finding:
    return Finding(
        'error',
        path,
        str(error),
        'a whole image',
        'replace the file, or move image and label map away',
    )


def _refused(error: Exception) -> Finding:
    text = ' '.join(str(error).split())
    fix = 'edit the pipeline'
    if 'reduce_zero_label' in text:
        fix = (
            'set reduce_zero_label in the data set alone, not in '
            'LoadAnnotations'
        )
    return Finding('error', '', text, 'settings that agree', fix)


def _count(label: np.ndarray, into: Counter) -> List[int]:
    counts = np.bincount(label.ravel().astype(np.int64))
    present = np.flatnonzero(counts)
    into.update({int(i): int(counts[i]) for i in present})
    return [int(i) for i in present]


def _grouped(source: Source, faults: List[Finding]) -> Iterator[Finding]:
    """Make one finding of faults of a kind; the first file is its example."""
    kinds: Dict[Tuple[str, str], List[Finding]] = {}
    for fault in faults:
        kinds.setdefault((fault.fix, fault.severity), []).append(fault)
    for same in kinds.values():
        first = same[0]
        more = f' (and {len(same) - 1} more files)' if len(same) > 1 else ''
        yield first._replace(
            file=(first.file or f'{source.loader}.dataset.pipeline') + more
        )
