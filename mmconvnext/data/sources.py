"""The data sets that a config reads, wrappers taken off."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from ..configs import bare_type as bare_name
from .findings import Finding, some

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


class Source(NamedTuple):
    """One data set of a loader, built but with none of its files read.

    Attributes:
        loader: key of the loader in the config.
        pipeline: steps of the data set, or of the wrapper around it.
        data: the host's data set.
    """

    loader: str
    pipeline: Sequence[Dict]
    data: Any

    @property
    def is_training(self) -> bool:
        return self.loader == 'train_dataloader'

    @property
    def classes(self) -> Tuple[str, ...]:
        return tuple(self.data.metainfo.get('classes') or ())


def name_of(cfg: Any) -> str:
    """Return the file of a config; a plain dict has none."""
    return getattr(cfg, 'filename', None) or 'config'


def leaves(dataset: Dict) -> Iterator[Dict]:
    """Yield the configs of the data sets inside wrappers.

    A wrapper's pipeline goes to a data set that has none of its own.
    """
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if inner[0] is None:
        yield dataset
        return
    for child in inner:
        for leaf in leaves(child):
            steps = leaf.get('pipeline') or dataset.get('pipeline') or []
            yield {**leaf, 'pipeline': steps}


def sources(
    cfg: Any, loaders: Sequence[str], faults: List[Finding]
) -> Iterator[Source]:
    """Build what the loaders read; what cannot be built becomes a finding."""
    for loader in loaders:
        dataset = (cfg.get(loader) or {}).get('dataset')
        for leaf in leaves(dataset) if dataset else ():
            classes = (leaf.get('metainfo') or {}).get('classes')
            if isinstance(classes, str):
                faults.append(_one_string(cfg, loader, classes))
                continue
            if len(set(classes or ())) != len(classes or ()):
                faults.append(_named_twice(cfg, loader, classes))
                continue
            if is_remote(leaf):
                faults.append(unchecked(loader, 'files of another machine'))
                continue
            try:
                steps = leaf.get('pipeline') or []
                yield Source(loader, steps, _build(leaf))
            except Exception as error:  # whatever the host's class raises
                faults.append(_unbuilt(cfg, loader, leaf, error))


def _build(leaf: Dict) -> Any:
    from mmengine.registry import DATASETS

    return DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})


def _one_string(cfg: Any, loader: str, classes: str) -> Finding:
    return Finding(
        'error',
        f'{name_of(cfg)}, {loader}.dataset.metainfo',
        f'classes={classes!r}, a string',
        'a tuple of names',
        f'classes=({classes!r},) with a comma after a single name',
    )


def _named_twice(cfg: Any, loader: str, classes: Sequence) -> Finding:
    twice = sorted({str(name) for name in classes if classes.count(name) > 1})
    return Finding(
        'error',
        f'{name_of(cfg)}, {loader}.dataset.metainfo',
        f'classes of one name: {some(twice)}',
        'every name once',
        'rename or remove them, and correct num_classes of the heads',
    )


def _unbuilt(cfg: Any, loader: str, leaf: Dict, error: Exception) -> Finding:
    text = ' '.join(str(error).split())
    if isinstance(error, TypeError) and 'lazy_init' in text:
        # None of mmengine's family; only the class knows how it reads.
        return unchecked(loader, f'a data set of type {leaf.get("type")}')
    text = text or 'no reason given (a missing ann_file or folder?)'
    return Finding(
        'error',
        f'{name_of(cfg)}, {loader}.dataset',
        f'{type(error).__name__}: {text}',
        f'settings that {bare_name(leaf.get("type"))} accepts',
        'edit the data set in the config',
    )


def unchecked(loader: str, found: str) -> Finding:
    """Say that something was not looked at."""
    return Finding(
        'note',
        loader,
        found,
        'files that BaseSegDataset, CocoDataset or ClassFolderDataset read',
        'its content was not checked',
    )


def is_remote(leaf: Dict) -> bool:
    """Whether a data set reads from an object store, as s3://."""
    prefixes = leaf.get('data_prefix') or {}
    if not isinstance(prefixes, dict):
        prefixes = dict(img=prefixes)
    places = [leaf.get('data_root'), leaf.get('ann_file'), *prefixes.values()]
    return any('://' in str(place) for place in places)


def step_of(pipeline: Sequence[Dict], name: str) -> Any:
    """Return a pipeline's first step of a type; None where it has none."""
    steps = [s for s in pipeline if bare_name(s.get('type')) == name]
    return steps[0] if steps else None


def own_reader(pipeline: Sequence[Dict]) -> Any:
    """Build a pipeline's step that reads images in a way of its own.

    Such a step, or mmcv's with another decoder, reads files that Pillow and
    OpenCV do not: more channels, other numbers.

    Returns:
        The step; None for the usual one, and for a pipeline without any.
    """
    from mmengine.registry import TRANSFORMS

    for step in pipeline:
        name = bare_name(step.get('type'))
        if re.fullmatch(r'Load\w*Image\w*', name):
            decoder = step.get('imdecode_backend') or 'cv2'
            usual = name == 'LoadImageFromFile' and decoder == 'cv2'
            ours = step['type'] == 'mmconvnext.LoadImage'
            return None if usual or ours else TRANSFORMS.build(dict(step))
    return None
