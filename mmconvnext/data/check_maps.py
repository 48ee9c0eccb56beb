"""Judge label maps: the files, their pairs, and the values inside.

Values are read by the host's own loading step, so that they are those a model
would be trained on: zero reduced, classes mapped, 255 ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

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
from .sources import Source, step_of

# Modes of Pillow whose pixels are one number, and at most 255.
SINGLE = ('1', 'L', 'P')


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


def check_maps(source: Source, limit: int) -> Iterator[Finding]:
    """Judge a data set of MMSegmentation.

    Args:
        source: a data set of the BaseSegDataset family.
        limit: of label maps that are opened, spread over all.
    """
    data = source.data
    folder = data.data_prefix.get('img_path') or ''
    if not os.path.isdir(folder) and not data.ann_file:
        yield _no_folder(folder)
        return
    rows = data.load_data_list()
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
    load = TRANSFORMS.build(dict(step))
    values = Values(Counter(), Counter(), {}, len(rows))
    faults: List[Finding] = []
    for row in progress(rows, 'reading label maps'):
        fault = _read(row, load, values)
        if fault:
            faults.append(fault)
        if fault and fault.file == '':  # a setting, the same for all
            break
    yield from _grouped(source, faults)
    if values.trained:
        yield from judge_values(source, values, total)


def _unread(source: Source) -> Finding:
    return Finding(
        'note',
        source.loader,
        'a pipeline without LoadAnnotations',
        'a step that is known here',
        'the values of these label maps were not checked',
    )


def _read(row: Dict, load: Any, values: Values) -> Optional[Finding]:
    """Count a map's values; return what is wrong with the file itself."""
    path = row['seg_map_path']
    try:
        size = loaded_size(row['img_path'])
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


def read_raw(path: str) -> np.ndarray:
    """Read a map as it is in its file: indices of a palette, not colours.

    Returns:
        ``(H, W)``, or ``(H, W, channels)`` of a colour image.

    Raises:
        ValueError: when the file is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'damaged: {error}') from None


def judge_map(
    path: str, raw: np.ndarray, size: Tuple[int, int]
) -> Optional[Finding]:
    """Say what is wrong with the shape or the range of one map."""
    if raw.ndim != 2:
        colours = np.unique(raw.reshape(-1, raw.shape[-1])[:100_000], axis=0)
        return Finding(
            'error',
            path,
            f'a colour image with {len(colours)} colours, '
            f'{some([tuple(map(int, colour)) for colour in colours])}',
            'one number a pixel, the index of its class',
            'python tools/new_project.py FOLDER turns colours into indices',
        )
    if raw.shape != size[::-1]:
        return Finding(
            'error',
            path,
            f'{raw.shape[1]} x {raw.shape[0]}',
            f'{size[0]} x {size[1]}, the size of its image',
            'make the map again, or scale it without interpolation',
        )
    if raw.dtype.kind != 'b' and (raw.max() > 255 or raw.min() < 0):
        return Finding(
            'error',
            path,
            f'values from {raw.min()} to {raw.max()}',
            '0 to 255: hosts keep the lowest 8 bits of a value',
            'write the index of each class as 8 bits',
        )
    return None


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
