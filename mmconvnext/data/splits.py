"""Divide images into training and validation where the folder does not."""

from __future__ import annotations

import random
from collections import Counter
from typing import Dict, List, NamedTuple, Set

from .labels import Labels, Picture

SHARE = 0.2  # of the images for validation


class Split(NamedTuple):
    """Labelled images for each use, and where the division comes from."""

    train: List[Picture]
    val: List[Picture]
    reason: str


def split(labels: Labels, seed: int = 0) -> Split:
    """Use the folder's own division, or make one by image.

    Raises:
        ValueError: when there are fewer than two labelled images.
    """
    pictures = [picture for picture in labels.pictures if picture.labelled]
    if len(pictures) < 2:
        raise ValueError(
            f'{len(pictures)} labelled image: two at least are needed, one '
            'to train and one to validate'
        )
    parts = {
        name: [p for p in pictures if p.split == name]
        for name in ('train', 'val', 'test')
    }
    rest = [p for p in pictures if not p.split]
    if parts['train'] and parts['val']:
        return Split(
            parts['train'] + rest, parts['val'], _own('val', parts, rest)
        )
    if parts['train'] and parts['test']:
        return Split(
            parts['train'] + rest, parts['test'], _own('test', parts, rest)
        )
    train, val = _divided(pictures, labels, seed)
    return Split(
        train,
        val,
        f'the folder has no division: {len(val)} of {len(pictures)} images '
        f'were drawn for validation, seed {seed}, rare classes first',
    )


def _own(val: str, parts: Dict[str, List[Picture]], rest: List) -> str:
    words = f"the folder's own: train, and {val} for validation"
    if rest:
        words += f'; {len(rest)} images that are in neither go to training'
    if val == 'val' and parts['test']:
        words += f'; {len(parts["test"])} test images are left alone'
    return words


def contents(picture: Picture, labels: Labels) -> Set[str]:
    """Name the classes in an image."""
    if picture.map:
        classes = labels.maps.classes
        found = [classes.get(v) for v in labels.maps.counts[picture.map]]
        return {labels.classes[i] for i in found if i is not None}
    return {item.name for item in picture.items or ()}


def _divided(pictures: List[Picture], labels: Labels, seed: int) -> tuple:
    """Draw images class by class, the rarest first.

    Each class gives its share of images to validation, less what classes
    before it brought there already; a class in one image stays in training.
    """
    order = sorted(pictures, key=lambda picture: picture.path)
    random.Random(seed).shuffle(order)
    inside = {p.path: contents(p, labels) for p in order}
    images = Counter(name for names in inside.values() for name in names)
    chosen: Set[str] = set()
    here: Counter = Counter()
    for name, number in sorted(images.items(), key=lambda row: row[1]):
        wanted = max(1, round(SHARE * number)) if number > 1 else 0
        for picture in order:
            if here[name] >= wanted:
                break
            names = inside[picture.path]
            # The last image of a class stays where it can be learnt from.
            last = any(images[n] - here[n] < 2 for n in names)
            if name in names and picture.path not in chosen and not last:
                chosen.add(picture.path)
                here.update(names)
    target = max(1, round(SHARE * len(order)))
    rest = [p.path for p in order if p.path not in chosen]
    chosen.update(rest[: min(len(rest) - 1, max(0, target - len(chosen)))])
    train = [p for p in pictures if p.path not in chosen]
    return train, [p for p in pictures if p.path in chosen]
