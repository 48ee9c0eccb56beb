"""Find images, read images, write files whole: the one place for each."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import secrets
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import cv2
import numpy as np

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# Pillow's modes that one convert('RGB') turns into the colours OpenCV gives.
PLAIN_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK')
PLAIN_MODES += ('YCbCr',)
GREY16_MODES = ('I;16', 'I;16B', 'I;16L', 'I;16N')
# Pillow opens a 16-bit file of these as 32-bit numbers, before 11.3 (PNG).
GREY16_AS_INT32 = (('I', 'PNG'), ('I', 'PPM'))
# OpenCV turns these by their EXIF orientation, and WebP by its version: ask
# is_turned. TIFF is turned by Pillow itself while it loads.
TURNED_FORMATS = ('JPEG', 'MPO', 'PNG')
ORIENTATION = 0x0112  # the EXIF tag
# orientation in EXIF: what brings (H, W, 3) upright
TURNS: Dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}


class DamagedImageError(ValueError):
    """An image file that cannot be read, or is of a kind that is refused."""


def find_images(path: str) -> List[Path]:
    """List the image files at or below ``path``, sorted; links are followed.

    Raises:
        FileNotFoundError: when there is none.
    """
    if Path(path).is_file():
        return [Path(path)]
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS)
    )
    if not found:
        raise FileNotFoundError(
            f'no image at {path} (looked for {", ".join(EXTENSIONS)})'
        )
    return found


def read_image(path: os.PathLike[str] | str) -> np.ndarray:
    """Read an image file as mmcv's ``LoadImageFromFile`` does, but in RGB.

    The image is turned upright by its EXIF orientation. Of 16-bit values
    the upper 8 bits are kept (12-bit data in them becomes dark, as in
    mmcv). Transparency is dropped. Pillow decodes, since OpenCV returns
    half an image for half a file.

    Returns:
        RGB, ``(H, W, 3)``, uint8, contiguous.

    Raises:
        DamagedImageError: for a file that is no whole image, and for float,
            32-bit and other pixels that have no 8-bit meaning; says which.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # By a stream: Pillow maps a file that it gets by name, and then
        # gives a grey TIFF of orientation 5 to 8 with its sides swapped.
        with open(path, 'rb') as stream, Image.open(stream) as image:
            pixels = _to_rgb(image)
            upright = TURNS.get(_orientation(image), np.asarray)
            return np.ascontiguousarray(upright(pixels))
    except DamagedImageError:
        raise
    except UnidentifiedImageError as error:
        raise DamagedImageError('not a readable image') from error
    except Exception as error:  # a damaged file breaks a parser anywhere
        text = str(error) or type(error).__name__
        raise DamagedImageError(f'not a readable image: {text}') from error


def check_pixels(image: Any) -> None:
    """Refuse an opened Pillow image whose pixels have no 8-bit meaning.

    Raises:
        DamagedImageError: says of which kind they are.
    """
    mode, format = image.mode, image.format
    grey16 = mode in GREY16_MODES or (mode, format) in GREY16_AS_INT32
    if mode not in PLAIN_MODES and not grey16:
        raise DamagedImageError(
            f'its pixels are of the kind {mode} ({format}), which is '
            f'not read: convert the file to 8 bits per channel'
        )


def _to_rgb(image: Any) -> np.ndarray:
    """Turn an opened Pillow image into RGB, ``(H, W, 3)`` uint8."""
    check_pixels(image)
    mode = image.mode
    if mode not in PLAIN_MODES:  # 16 bits
        grey = (np.asarray(image).astype(np.int32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if mode == 'RGBA' and image.format == 'TIFF':
        # libtiff, which OpenCV reads with, multiplies colours by alpha.
        pixels = np.asarray(image).astype(np.uint16)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype('u1')
    return np.asarray(image.convert('RGB'))


@functools.lru_cache(maxsize=1)
def opencv_turns_webp() -> bool:
    """Whether this OpenCV turns WebP by EXIF: 5.0 does, 4.12 does not."""
    from PIL import Image

    exif, stream = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    Image.new('RGB', (2, 1)).save(stream, 'WEBP', exif=exif)
    image = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), 1)
    return image.shape[:2] == (2, 1)


def is_turned(format: Optional[str]) -> bool:
    """Whether OpenCV turns images of Pillow's ``format`` by their EXIF."""
    return format in TURNED_FORMATS or (
        format == 'WEBP' and opencv_turns_webp()
    )


def _orientation(image: Any) -> int:
    """Read the EXIF orientation, 1 to 8; 1 is upright, or nothing said."""
    from PIL import Image

    if not is_turned(image.format):
        return 1
    exif = Image.Exif()
    # A damaged EXIF block is no reason to refuse the pixels.
    with contextlib.suppress(Exception):
        exif.load(image.info.get('exif') or b'')
        return int(exif.get(ORIENTATION, 1))
    return 1


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize ``(H, W, 3)`` uint8, bicubic and antialiased."""
    from PIL import Image

    resized = Image.fromarray(image).resize((width, height), Image.BICUBIC)
    return np.array(resized)


def resize_middle(
    image: np.ndarray, height: int, width: int, crop_ratio: Optional[float]
) -> np.ndarray:
    """Resize ``(H, W, 3)`` uint8 and cut its middle, as classifiers see it.

    Args:
        image: of any size.
        height, width: of the result.
        crop_ratio: share of the shorter side that is seen; None squeezes
            the whole image.
    """
    if crop_ratio is None:
        return resize(image, height, width)
    # Whole pixels as torchvision counts them, for equal results.
    short, shorter = int(max(height, width) / crop_ratio), min(image.shape[:2])
    image = resize(image, *(short * n // shorter for n in image.shape[:2]))
    top, left = (
        round((have - want) / 2)
        for have, want in zip(image.shape, (height, width))
    )
    return image[top : top + height, left : left + width]


@contextlib.contextmanager
def whole_file(path: os.PathLike[str] | str) -> Iterator[Path]:
    """Give a temporary name beside ``path``; it becomes ``path`` at the end.

    Whoever reads ``path`` sees the old file or the whole new one. Where the
    block raises, the old file stays and nothing is left beside it. Folders
    are made. The temporary name is hidden and has the ending of ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not from tempfile, whose files nobody else may read.
    part = path.with_name(f'.{path.stem}.{secrets.token_hex(4)}{path.suffix}')
    try:
        yield part
        os.replace(part, path)
    finally:
        if part.exists():
            part.unlink()


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an RGB picture, or a grey one (H, W), whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    path = Path(path)
    try:
        bgr = image[..., ::-1] if image.ndim == 3 else image
        # OpenCV encodes, Python writes: OpenCV ends the process at a path
        # that its locale cannot spell.
        done, data = cv2.imencode(path.suffix, bgr)
    except cv2.error as error:
        raise OSError(f'cannot write {path}: {error.err}') from error
    if not done:
        raise OSError(f'cannot write {path}')
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Names of files that the locale cannot spell are written as they are on
    the disk.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8', errors='surrogateescape')
