"""Labels as every reader gives them, whatever format they came in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .findings import Finding
from .images import files_below, is_image, progress

SPLITS = ('train', 'val', 'test')
# Words in names of folders and files that say which split is inside.
SPLIT_WORDS = {
    **dict.fromkeys(('train', 'training', 'trainset', 'trn'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'valset', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing', 'testset', 'eval'), 'test'),
}


class Item(NamedTuple):
    """A labelled object.

    Attributes:
        name: of its class.
        box: left, top, width, height in pixels.
        mask: polygons [[x, y, ...], ...] or run lengths of COCO, or None.
        crowd: whether it is a group that shall not be counted.
    """

    name: str
    box: Tuple[float, float, float, float]
    mask: Any = None
    crowd: bool = False


class Picture(NamedTuple):
    """An image and what its label says.

    Attributes:
        path: of the image, relative to the folder, with slashes.
        size: width and height, as training sees them.
        items: its objects; None where the image has no label at all.
        map: file of its label map, relative to the folder.
        split: of ``SPLITS``, or empty where the folder says nothing.
    """

    path: str
    size: Tuple[int, int]
    items: Optional[List[Item]] = None
    map: str = ''
    split: str = ''

    @property
    def labelled(self) -> bool:
        return self.items is not None or bool(self.map)


class Maps(NamedTuple):
    """What the pixels of label maps mean.

    Attributes:
        classes: index of the class by pixel value; others are ignored. A
            colour's value is 65536 r + 256 g + b.
        coloured: whether the maps are colours.
        palette: RGB of each class.
        counts: pixels by value, for each map.
        zero: what label 0 is taken for, with the reason, to be printed.
    """

    classes: Dict[int, int]
    coloured: bool
    palette: List[Tuple[int, int, int]]
    counts: Dict[str, Dict[int, int]]
    zero: str = ''


class Wishes(NamedTuple):
    """What the user said about the labels.

    Attributes:
        classes: names in their order; empty for those of the folder.
        zero: ``'class'`` or ``'ignore'``; empty for what seems right.
        rename: new name by old name.
    """

    classes: Tuple[str, ...] = ()
    zero: str = ''
    rename: Dict[str, str] = {}


class Labels(NamedTuple):
    """All that a reader found in a folder.

    Attributes:
        format: name of the format, for people.
        pictures: sorted by path.
        classes: names in the order of the format.
        named: whether the names are those of the folder, not made up.
        oddities: what was passed over or corrected, and why.
        maps: what label maps hold; None for objects.
    """

    format: str
    pictures: List[Picture]
    classes: List[str]
    named: bool = True
    oddities: Tuple[Finding, ...] = ()
    maps: Optional[Maps] = None


class Folder:
    """The files of a user's folder, found once, read only.

    Args:
        root: the folder.

    Raises:
        FileNotFoundError: when there is no such folder.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'{root} is no folder')
        self.files = files_below(root)
        self.images = [path for path in self.files if is_image(path)]
        self._sizes: Dict[str, Tuple[int, int]] = {}
        self._stems: Dict[str, List[str]] = {}
        self.damaged: Dict[str, str] = {}

    def ending(self, *suffixes: str) -> List[str]:
        """List the files with one of these suffixes, in any case."""
        return [p for p in self.files if p.lower().endswith(suffixes)]

    def read(self, path: str) -> str:
        """Read a text file, with or without a byte order mark.

        Raises:
            ValueError: when it is no text.
        """
        try:
            return (self.root / path).read_text(encoding='utf-8-sig')
        except UnicodeDecodeError:
            raise ValueError(
                f'{self.root / path} is no UTF-8 text; save it as UTF-8'
            ) from None

    def sizes(self, paths: List[str]) -> Dict[str, Tuple[int, int]]:
        """Return width and height of images; damaged ones are put aside."""
        from .images import loaded_size

        new = [path for path in paths if path not in self._sizes]
        for path in progress(new, 'reading images'):
            try:
                self._sizes[path] = loaded_size(str(self.root / path))
            except ValueError as error:
                self.damaged[path] = str(error)
        return {p: self._sizes[p] for p in paths if p in self._sizes}

    def find_image(self, name: str, near: str) -> Optional[str]:
        """Find the image that a label names.

        Of images of one name the nearest is taken: the one whose path has
        most folders and splits in common with the label's.

        Args:
            name: as the label has it, with or without folders; its suffix
                and the case of that do not matter.
            near: path of the label.
        """
        stem = stem_of(name)
        found = self._by_stem().get(stem, [])
        whole = str(Path(name.replace('\\', '/')).with_suffix('')).lower()
        near_split = split_of(near)

        def rank(path: str) -> Tuple:
            without = str(Path(path).with_suffix('')).lower()
            exact = without == whole or without.endswith('/' + whole)
            same = sum(
                a == b for a, b in zip(path.split('/'), near.split('/'))
            )
            return exact, split_of(path) == near_split, same

        return max(found, key=rank) if found else None

    def _by_stem(self) -> Dict[str, List[str]]:
        if not self._stems:
            for path in self.images:
                self._stems.setdefault(stem_of(path), []).append(path)
        return self._stems


def stem_of(name: str) -> str:
    """Return the bare name of a file, in lower case."""
    return Path(name.replace('\\', '/')).stem.lower()


def split_of(path: str) -> str:
    """Read a split from the names of folders and file; empty for none.

    The innermost name that says something counts, so that ``train/x.jpg``
    and ``instances_train2017.json`` do.
    """
    for part in reversed(Path(path).with_suffix('').parts):
        words = re.findall(r'[a-z]+', part.lower())
        found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
        if len(found) == 1:
            return found.pop()
    return ''


def corner_box(points: List[float]) -> Tuple[float, float, float, float]:
    """Return the box around a polygon [x, y, x, y, ...]."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def passed_over(
    file: str, found: str, expected: str, fix: str = 'correct the label'
) -> Finding:
    """Make a finding of what a reader leaves out."""
    return Finding('warning', file, found, expected, fix)
