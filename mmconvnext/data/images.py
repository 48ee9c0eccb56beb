"""Look at image files without decoding more of them than is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from ..files import (
    EXTENSIONS,
    ORIENTATION,
    DamagedImageError,
    check_pixels,
    is_turned,
)

T = TypeVar('T')
SIDES_SWAPPED = (5, 6, 7, 8)  # orientations of EXIF


def loaded_size(
    path: str, load: Optional[Callable[[Dict], Any]] = None
) -> Tuple[int, int]:
    """Return width and height as training sees them, EXIF applied.

    All of the file is decoded, a JPEG at an eighth of its size: one that
    was cut off is found, at a fraction of the time.

    Args:
        path: of an image.
        load: the host's step that reads it, where that is not the usual one
            (from :func:`.sources.own_reader`): only it knows such files.

    Raises:
        ValueError: when the file is damaged, no image, or one whose pixels
            hosts make nothing of (float, 32 bits).
    """
    from PIL import Image, UnidentifiedImageError

    if load:
        try:
            height, width = load(dict(img_path=path))['img'].shape[:2]
        except Exception as error:  # whatever a user's own class raises
            text = ' '.join(str(error).split()) or type(error).__name__
            raise ValueError(f'not read by this pipeline: {text}') from None
        return width, height
    try:
        # By a stream, as files.read_image: Pillow maps a file by name.
        with open(path, 'rb') as stream, Image.open(stream) as image:
            check_pixels(image)
            size, format = image.size, image.format
            turned = is_turned(format) and (
                image.getexif().get(ORIENTATION) in SIDES_SWAPPED
            )
            image.draft(None, (size[0] // 8 or 1, size[1] // 8 or 1))
            image.load()
            # A TIFF is turned by Pillow itself while it loads.
            width, height = image.size if format == 'TIFF' else size
    except UnidentifiedImageError:
        raise ValueError('not a readable image') from None
    except DamagedImageError:
        raise
    except Exception as error:  # a damaged file breaks a parser anywhere
        text = str(error) or type(error).__name__
        raise ValueError(f'damaged: {text}') from None
    return (height, width) if turned else (width, height)


def files_below(folder: str) -> List[str]:
    """List the paths of all files below a folder, relative, sorted."""
    found = [
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith('.')
    ]
    return sorted(path.replace(os.sep, '/') for path in found)


def is_image(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def suffixes(paths: Iterable[str]) -> Dict[str, int]:
    """Count the suffixes of files, commonest first."""
    counts: Dict[str, int] = {}
    for path in paths:
        suffix = Path(path).suffix
        counts[suffix] = counts.get(suffix, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def spread(items: Sequence[T], limit: int) -> List[T]:
    """Pick at most ``limit`` items at equal distances: the same each time."""
    if len(items) <= limit:
        return list(items)
    step = (len(items) - 1) / max(1, limit - 1)
    return [items[round(i * step)] for i in range(limit)]


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """Iterate with a bar on a terminal; silent in a file or a pipe."""
    from rich.console import Console
    from rich.progress import track

    quiet = not sys.stderr.isatty()
    console = Console(stderr=True)
    yield from track(
        items, what, console=console, disable=quiet, transient=True
    )
