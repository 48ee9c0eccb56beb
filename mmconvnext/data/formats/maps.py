"""Label maps: an image of class indices, a palette or colours for each image.

Which files are maps is read from the names of folders (annotations, masks,
labels, ...), from endings (_mask, _L, ...), and where neither helps from
their content.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ..map_files import read_raw
from ..findings import Finding
from ..images import progress, spread
from ..labels import Folder, Labels, Picture, Wishes, passed_over, split_of
from .meaning import meaning

NAME = 'label maps'
LOSSLESS = ('.png', '.bmp', '.tif', '.tiff')
WORDS = {
    *('annotation', 'annotations', 'label', 'labels', 'mask', 'masks'),
    *('gt', 'seg', 'segmentation', 'segmentations', 'segmentationclass'),
    *('groundtruth', 'labelids', 'trainannot', 'valannot', 'testannot'),
}
ENDING = re.compile(
    r'[_\-. ](l|gt|gtfine|seg|mask|masks|label|labels|labelids|'
    r'labeltrainids|annotation|segmentation)$',
    re.IGNORECASE,
)
IMAGE_ENDING = re.compile(r'[_\-. ](image|img|leftimg8bit|rgb)$', re.I)
# A folder of files with fewer values than this holds maps, not photographs.
FEW = 64
MOST_COLOURS = 256


class Pair(NamedTuple):
    image: str
    map: str


def find(folder: Folder) -> List[Pair]:
    """Pair images with label maps."""
    maps = [path for path in folder.images if looks_like_map(path)]
    if not maps:
        maps = _few_valued(folder)
    images: Dict[str, List[str]] = {}
    for path in sorted(set(folder.images) - set(maps)):
        images.setdefault(_key(path), []).append(path)
    if not maps:
        maps = _beside(images)
    pairs: Dict[str, str] = {}
    for path in maps:
        image = _nearest(images.get(_key(path), []), path)
        if image and _better(folder, path, pairs.get(image)):
            pairs[image] = path
    return [Pair(*item) for item in sorted(pairs.items())]


def looks_like_map(path: str) -> bool:
    """Whether folders or ending of a name say that it is a label map."""
    if not path.lower().endswith(LOSSLESS):
        return False
    folders = Path(path).parent.parts
    words = {w for part in folders for w in re.findall('[a-z]+', part.lower())}
    return bool(words & WORDS or ENDING.search(Path(path).stem))


def _key(path: str) -> str:
    stem = Path(path).stem
    while ENDING.search(stem):
        stem = ENDING.sub('', stem)
    return IMAGE_ENDING.sub('', stem).lower()


def _few_valued(folder: Folder) -> List[str]:
    """List the files of folders whose files have few values each."""
    by_folder: Dict[str, List[str]] = {}
    for path in folder.images:
        if path.lower().endswith(LOSSLESS):
            by_folder.setdefault(str(Path(path).parent), []).append(path)
    if len({str(Path(path).parent) for path in folder.images}) < 2:
        return []
    return [
        path
        for paths in by_folder.values()
        if all(_is_few(folder, each) for each in spread(paths, 3))
        for path in paths
    ]


def _is_few(folder: Folder, path: str) -> bool:
    try:
        return len(np.unique(values_of(folder, path)[0])) <= FEW
    except ValueError:
        return False


def _beside(images: Dict[str, List[str]]) -> List[str]:
    """List x.png where there is an x.jpg in the same folder."""
    return [
        path
        for paths in images.values()
        for path in paths
        if path.lower().endswith(LOSSLESS)
        and any(
            Path(other).parent == Path(path).parent
            and not other.lower().endswith(LOSSLESS)
            for other in paths
        )
    ]


def _nearest(images: List[str], path: str) -> Optional[str]:
    """Choose among images of one name: the same split, the same folders."""
    others = [image for image in images if image != path]

    def rank(image: str) -> Tuple:
        parts, wanted = Path(image).parts[:-1], Path(path).parts[:-1]
        same = sum(a == b for a, b in zip(parts[::-1], wanted[::-1]))
        return split_of(image) == split_of(path), same

    return max(others, key=rank) if others else None


def _better(folder: Folder, path: str, other: Optional[str]) -> bool:
    """Prefer indices to colours where an image has both."""
    if other is None:
        return True
    try:
        mine, theirs = (read_raw(str(folder.root / p)) for p in (path, other))
    except ValueError:
        return False
    return mine.ndim < theirs.ndim


def values_of(folder: Folder, path: str) -> Tuple[np.ndarray, bool]:
    """Read a map as one number a pixel; say whether they are colours.

    Raises:
        ValueError: when the file is damaged.
    """
    raw = read_raw(str(folder.root / path))
    if raw.ndim == 2:
        return raw.astype(np.int64), False
    if raw.shape[-1] == 2:  # grey and opacity
        return raw[..., 0].astype(np.int64), False
    red, green, blue = np.moveaxis(raw[..., :3].astype(np.int64), -1, 0)
    if (red == green).all() and (green == blue).all():
        return red, False
    return 65536 * red + 256 * green + blue, True


def read(folder: Folder, pairs: List[Pair], wishes: Wishes) -> Labels:
    """Read all maps, and find out what their values mean.

    Raises:
        ValueError: for maps that are no maps, or that leave nothing to learn.
    """
    odd: List[Finding] = []
    sizes = folder.sizes([pair.image for pair in pairs])
    counts, coloured = {}, set()
    for pair in progress(pairs, 'reading label maps'):
        found = _read(folder, pair, sizes, odd)
        if found:
            counts[pair.map], is_colour = found
            coloured.add(is_colour)
    if not counts:
        first = f'the first: {odd[0]}' if odd else 'no image can be read'
        raise ValueError(f'{folder.root}: no usable label map; {first}')
    # A map of black alone is grey among colours.
    maps, names, named = meaning(
        folder, counts, any(coloured), wishes, pairs, odd
    )
    labels = {pair.image: pair.map for pair in pairs if pair.map in counts}
    taken = set(labels.values()) | {pair.map for pair in pairs}
    pictures = [
        Picture(
            path,
            size,
            map=labels.get(path, ''),
            split=split_of(path) or split_of(labels.get(path, '')),
        )
        for path, size in folder.sizes(
            [p for p in folder.images if _is_picture(p, taken, labels)]
        ).items()
    ]
    return Labels(NAME, pictures, names, named, tuple(odd), maps)


def _is_picture(path: str, taken: set, labels: Dict[str, str]) -> bool:
    if path in labels:
        return True
    return path not in taken and not looks_like_map(path)


def _read(
    folder: Folder, pair: Pair, sizes: Dict, odd: List[Finding]
) -> Optional[Tuple[Dict[int, int], bool]]:
    """Count the values of a map; None where it cannot be used."""
    if pair.image not in sizes:
        return None
    try:
        values, coloured = values_of(folder, pair.map)
    except ValueError as error:
        odd.append(
            passed_over(pair.map, str(error), 'a whole image', 'replace it')
        )
        return None
    width, height = sizes[pair.image]
    if values.shape != (height, width):
        odd.append(
            passed_over(
                pair.map,
                f'{values.shape[1]} x {values.shape[0]}',
                f'{width} x {height}, the size of {pair.image}',
                'make the map again',
            )
        )
        return None
    present, counts = np.unique(values, return_counts=True)
    if len(present) > MOST_COLOURS:
        raise ValueError(
            f'{folder.root / pair.map}: {len(present)} different values, '
            f'more than {MOST_COLOURS}: this is a photograph, or a label map '
            'that was scaled or saved as JPEG'
        )
    return dict(zip(present.tolist(), counts.tolist())), coloured
