"""Check the data of a config by its content, before any work."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator, List, Optional, Sequence

from .check_classes import check_classes
from .check_coco import check_coco
from .check_maps import check_maps
from .check_model import check_model
from .findings import DataError, Finding, errors, ordered, some
from .sources import (
    LOADERS,
    Source,
    bare_name,
    name_of,
    sources,
    unchecked,
)

SAMPLE = 300  # of maps or images that are opened for each data set
# What the config's data_check may say.
MODES = ('stop', 'warn', 'off')
# What judges data sets that are, or derive from, a class.
FAMILIES = {
    'BaseSegDataset': check_maps,
    'ClassFolderDataset': check_classes,
}


def check(
    cfg: Any,
    loaders: Sequence[str] = LOADERS,
    sample: int = SAMPLE,
    model: bool = True,
) -> List[Finding]:
    """Judge all data that a config reads.

    All of a COCO file is read; of label maps and images at most ``sample``
    for each data set are opened.

    Args:
        cfg: of either host, its data where the config looks.
        loaders: keys of the loaders to go over.
        sample: of files opened for each data set.
        model: whether the model's heads have to fit the data too.

    Returns:
        Errors, then warnings, then notes on what was not checked.
    """
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.get('default_scope') or 'mmengine')
    found: List[Finding] = []
    # Images may be divided by lists alone, all of them in one folder.
    family = list(sources(cfg, LOADERS, []))
    for source in sources(cfg, loaders, found):
        judge = checker_of(source.data)
        if judge is None:
            name = bare_name(type(source.data))
            words = f'a data set of type {name}'
            found.append(unchecked(source.loader, words))
            continue
        found += judge(source, sample, family)
        if not source.is_training:
            found += _evaluator(cfg, source)
            if judge is not check_classes:  # it does so itself
                found += _other_classes(source, family)
        elif model:
            found += check_model(cfg, source)
    return ordered(found)


def checker_of(data: Any) -> Optional[Callable]:
    """Choose by what the host's class does, not by its name.

    A class that reads rows of its own from a JSON file is none of COCO's.
    """
    family = {each.__name__: each for each in type(data).__mro__}
    for name, judge in FAMILIES.items():
        if name in family:
            return judge
    coco = family.get('CocoDataset')
    same = coco and all(
        getattr(type(data), name) is getattr(coco, name)
        for name in ('load_data_list', 'parse_data_info')
    )
    return check_coco if same else None


def _evaluator(cfg: Any, source: Source) -> Iterator[Finding]:
    """Find an evaluator that compares with another file than is loaded."""
    key = source.loader.replace('dataloader', 'evaluator')
    given = cfg.get(key) or []
    for row in given if isinstance(given, (list, tuple)) else [given]:
        file = row.get('ann_file')
        ours = getattr(source.data, 'ann_file', None)
        if file and ours and not _same(file, ours):
            yield Finding(
                'error',
                f'{name_of(cfg)}, {key}',
                f'ann_file={file!r}',
                f'{ours!r}, the file of {source.loader}',
                f'ann_file={ours!r} in {key}',
            )


def _other_classes(
    source: Source, family: Sequence[Source]
) -> Iterator[Finding]:
    """Find data that is tested under other names than it is trained."""
    trained = next((s.classes for s in family if s.is_training), ())
    if not trained or not source.classes or source.classes == trained:
        return
    yield Finding(
        'error' if set(source.classes) == set(trained) else 'warning',
        f'{source.loader}.dataset.metainfo',
        f'classes={some(source.classes)}',
        f'{some(trained)}, in the order of train_dataloader: numbers would '
        'have other names',
        'the same metainfo in all loaders',
    )


def _same(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def demand(
    cfg: Any,
    loaders: Sequence[str],
    say: Callable[[Finding], None] = print,
    model: bool = True,
) -> None:
    """Stop before any work when the data cannot give what is asked for.

    Warnings and notes are said. ``data_check`` of the config chooses what
    errors do: ``'stop'`` (where it says nothing), ``'warn'``, or ``'off'``
    for no check at all. In a distributed run the first process checks.

    Raises:
        DataError: with every error.
        ValueError: for another value of ``data_check``.
    """
    mode = cfg.get('data_check', 'stop')
    if mode not in MODES:
        raise ValueError(
            f'data_check={mode!r} in {name_of(cfg)}; allowed: {list(MODES)}'
        )
    ranks = [os.environ.get(key, '0') for key in ('RANK', 'SLURM_PROCID')]
    if mode == 'off' or ranks != ['0', '0']:
        return
    found = check(cfg, loaders, model=model)
    fatal = errors(found) if mode == 'stop' else []
    for finding in found:
        if finding not in fatal:
            say(finding)
    if fatal:
        raise DataError(fatal)
