"""Judge class folders and lists of images with a class each."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Dict, Iterator, List, Sequence

from .findings import Finding, some
from .images import is_image, loaded_size, progress, spread
from .sources import Source, own_reader

LAYOUT = 'CLASS/image.jpg, a folder for each class'


def check_classes(
    source: Source, limit: int, family: Sequence[Source] = ()
) -> Iterator[Finding]:
    """Judge a data set of class folders, or a list.

    Args:
        source: a ClassFolderDataset.
        limit: of images that are opened, spread over all.
        family: all data sets of the config; the numbers of classes have to
            mean the same in all of them.
    """
    data = source.data
    where = data.ann_file or data.folder
    try:
        rows = data.load_data_list()
    except (FileNotFoundError, ValueError) as error:
        layout = 'lines PATH CLASS' if data.ann_file else LAYOUT
        fix = 'add the images, or take the class away'
        yield Finding('error', where, str(error), layout, fix)
        return
    if len(source.classes) < 2:
        yield _one_class(where, source.classes)
        return
    yield from _other_numbers(source, family, where)
    yield from _empty(source, rows, where)
    if data.ann_file:
        gone = [r['img_path'] for r in rows if not _is_file(r['img_path'])]
        if gone:
            yield _gone(where, gone, len(rows))
            return
    else:
        yield from _loose(data.folder)
    yield from _contents(source, spread(rows, limit))


def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def _one_class(where: str, classes: Sequence[str]) -> Finding:
    return Finding(
        'error',
        where,
        f'{len(classes)} classes: {some(classes)}',
        f'two or more; {LAYOUT}',
        'point data_prefix.img_path to the folder that holds class folders',
    )


def _other_numbers(
    source: Source, family: Sequence[Source], where: str
) -> Iterator[Finding]:
    """Find a class that has another number than in training."""
    trained = next((s.classes for s in family if s.is_training), ())
    if source.is_training or not trained or source.classes == trained:
        return
    lacking = [name for name in trained if name not in source.classes]
    new = [name for name in source.classes if name not in trained]
    words = [f'no {some(lacking)}'] * bool(lacking)
    words += [f'{some(new)}, not in training'] * bool(new)
    yield Finding(
        'error',
        where,
        f'other classes than in training: {"; ".join(words) or "the order"}',
        f'{some(trained)}: numbers would mean other classes',
        'metainfo=dict(classes=(...)) of training in all loaders, and no '
        'images of other classes',
    )


def _empty(
    source: Source, rows: List[Dict], where: str
) -> Iterator[Finding]:
    """Find classes without an image, where the names are given."""
    counts = Counter(row['gt_label'] for row in rows)
    names = [c for i, c in enumerate(source.classes) if not counts[i]]
    if names:
        yield Finding(
            'warning',
            where,
            f'no image of {some(names)}',
            'images of every class',
            'add images, or take the classes out of metainfo and num_classes',
        )


def _gone(where: str, gone: Sequence[str], total: int) -> Finding:
    return Finding(
        'error',
        where,
        f'{len(gone)} of {total} images it lists are not there: '
        f'{some([repr(path) for path in gone])}',
        'paths below data_prefix.img_path',
        'correct the list, or data_prefix.img_path',
    )


def _loose(folder: str) -> Iterator[Finding]:
    """Find images beside the class folders, which have no class."""
    names = sorted(filter(is_image, os.listdir(folder)))
    if names:
        yield Finding(
            'warning',
            folder,
            f'{len(names)} images outside of the class folders: {some(names)}',
            LAYOUT,
            'move them into a class folder; they are left out',
        )


def _contents(source: Source, rows: Sequence[Dict]) -> Iterator[Finding]:
    """Open images; those that cannot be read would end a run."""
    load: Any = own_reader(source.pipeline)
    for row in progress(rows, f'{source.loader}: images'):
        path = row['img_path']
        try:
            loaded_size(path, load)
        except (ValueError, OSError) as error:
            fix = 'replace or remove the file'
            yield Finding('error', path, str(error), 'an image', fix)
