"""Images are found and read, files are written whole."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Tuple

import cv2
import numpy as np
import pytest
from drawn import picture
from PIL import Image

from mmconvnext import files
from mmconvnext.files import (
    DamagedImageError,
    find_images,
    read_image,
    whole_file,
    write_image,
    write_text,
)

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (7, 11, 4), dtype=np.uint8)
WORDS = RANDOM.integers(0, 65536, (7, 11, 3), dtype=np.uint16)
RGB = Image.fromarray(BYTES[..., :3])
PALETTE = RGB.quantize(16)
SMOOTH = Image.fromarray(
    np.linspace(0, 255, 7 * 11 * 4).reshape(7, 11, 4).astype(np.uint8), 'CMYK'
)


def pillow(image: Image.Image, **options) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


def opencv(image: np.ndarray) -> Callable[[Path], None]:
    return lambda path: cv2.imwrite(str(path), image)


def grey(bits: int) -> Image.Image:
    """An image of 16 bits, of which only the lower ``bits`` are used."""
    return Image.fromarray(WORDS[..., 0] >> (16 - bits))


# name: (how it is written, how far from OpenCV's colours it may be: YCbCr
# and CMYK are turned into RGB with other roundings)
KINDS: Dict[str, Tuple[Callable[[Path], None], int]] = {
    'one_bit.png': (pillow(RGB.convert('1')), 0),
    'one_bit.tif': (pillow(RGB.convert('1')), 0),
    'grey.png': (pillow(RGB.convert('L')), 0),
    'grey.jpg': (pillow(RGB.convert('L')), 0),
    'grey_alpha.png': (pillow(Image.fromarray(BYTES[..., :2], 'LA')), 0),
    'palette.png': (pillow(PALETTE), 0),
    'palette_clear.png': (pillow(PALETTE, transparency=3), 0),
    'palette.bmp': (pillow(PALETTE), 0),
    'palette.tif': (pillow(PALETTE), 0),
    'colour.png': (pillow(RGB), 0),
    'colour_clear.png': (pillow(RGB, transparency=(1, 2, 3)), 0),
    'colour.jpg': (pillow(RGB, quality=90), 0),
    'colour.tiff': (pillow(RGB), 0),
    'colour.webp': (pillow(RGB, lossless=True), 0),
    'alpha.png': (pillow(Image.fromarray(BYTES)), 0),
    'alpha.tif': (pillow(Image.fromarray(BYTES)), 0),
    'alpha.webp': (pillow(Image.fromarray(BYTES), lossless=True), 0),
    'cmyk.jpg': (pillow(SMOOTH, quality=95), 3),
    'cmyk.tif': (pillow(SMOOTH), 1),
    'ycbcr.tif': (pillow(RGB.convert('YCbCr')), 1),
    'grey_16.png': (pillow(grey(16)), 0),
    'grey_12.png': (pillow(grey(12)), 0),
    'grey_16.tif': (pillow(grey(16)), 0),
    'grey_12.tif': (pillow(grey(12)), 0),
    'grey_16.pgm': (pillow(grey(16)), 0),
    'colour_16.png': (opencv(WORDS), 0),
    'colour_16.tif': (opencv(WORDS), 1),
}
REFUSED = {
    'float.tif': ('F', Image.fromarray(WORDS[..., 0].astype(np.float32))),
    'int32.tif': ('I', Image.fromarray(WORDS[..., 0].astype(np.int32))),
    'lab.tif': ('LAB', RGB.convert('LAB')),
}


def decoded(path: Path) -> np.ndarray:
    """RGB as mmcv decodes it: imdecode with the colour flag."""
    data = np.fromfile(path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_is_read_as_mmcv_reads_it(
    tmp_path: Path, name: str
) -> None:
    write, allowed = KINDS[name]
    write(tmp_path / name)
    image, expected = read_image(tmp_path / name), decoded(tmp_path / name)
    assert (image.dtype, image.shape) == (np.uint8, (7, 11, 3))
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).max() <= allowed


@pytest.mark.parametrize('mode', [*files.GREY16_MODES, 'I'])
def test_grey_16_bits_by_any_name_of_pillow(mode: str) -> None:
    # Pillow has opened such PNG files under all these names.
    values = WORDS[..., 0]

    class Opened:
        format = 'PNG'
        __array_interface__ = values.__array_interface__

    Opened.mode = mode
    found = files._to_rgb(Opened())
    assert np.array_equal(found, np.repeat(values[..., None] >> 8, 3, axis=2))


@pytest.mark.parametrize('name', REFUSED)
def test_pixels_without_an_8_bit_meaning_are_refused(
    tmp_path: Path, name: str
) -> None:
    mode, image = REFUSED[name]
    image.save(tmp_path / name)
    pattern = rf'of the kind {mode} \(TIFF\).*convert'
    with pytest.raises(DamagedImageError, match=pattern):
        read_image(tmp_path / name)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    ('ending', 'image'),
    [
        *((ending, RGB) for ending in ('jpg', 'png', 'tif', 'webp')),
        *((ending, RGB.convert('L')) for ending in ('jpg', 'png', 'tif')),
        *((ending, grey(16)) for ending in ('png', 'tif')),
    ],
)
def test_images_are_turned_as_mmcv_turns_them(
    tmp_path: Path, ending: str, image: Image.Image, orientation: int
) -> None:
    exif = Image.Exif()
    exif[files.ORIENTATION] = orientation
    path = tmp_path / f'x.{ending}'
    options = dict(lossless=True) if ending == 'webp' else {}
    image.save(path, exif=exif, **options)
    found = read_image(path)
    assert np.array_equal(found, decoded(path))
    turned = ending != 'webp' or files.opencv_turns_webp()
    turned = turned and orientation > 4
    assert found.shape == ((11, 7, 3) if turned else (7, 11, 3))


def test_a_damaged_orientation_leaves_the_image_readable(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'x.jpg'
    RGB.save(path, exif=b'Exif\x00\x00II*\x00\xff\xff\xff\x7f')
    assert np.array_equal(read_image(path), decoded(path))


def test_half_a_file_is_damaged(tmp_path: Path) -> None:
    stream = io.BytesIO()
    picture_of = Image.fromarray(np.tile(BYTES[..., :3], (20, 20, 1)))
    for ending in ('jpeg', 'png', 'bmp', 'tiff', 'webp'):
        stream = io.BytesIO()
        picture_of.save(stream, ending)
        path = tmp_path / f'half.{ending}'
        path.write_bytes(stream.getvalue()[: stream.tell() // 2])
        with pytest.raises(DamagedImageError, match='not a readable image'):
            read_image(path)
    with pytest.raises(DamagedImageError, match='No such file'):
        read_image(tmp_path / 'gone.png')


def test_images_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ('b/x.JPG', 'a.png', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'')
    found = find_images(str(tmp_path))
    assert [p.name for p in found] == ['a.png', 'x.JPG']
    assert find_images(str(tmp_path / 'notes.txt')) == [tmp_path / 'notes.txt']
    with pytest.raises(FileNotFoundError, match='no image at gone'):
        find_images('gone')
    with pytest.raises(ValueError, match='not a readable image'):
        read_image(tmp_path / 'a.png')


@pytest.mark.parametrize(
    ('shape', 'short', 'resized', 'corner'),
    [
        ((97, 130), 256, (256, 343), (16, 60)),  # 59.5 goes to the even one
        ((131, 100), 256, (335, 256), (56, 16)),
        ((500, 375), 256, (341, 256), (58, 16)),
        ((64, 64), 256, (256, 256), (16, 16)),
    ],
)
def test_the_middle_is_that_of_published_tests(
    shape: Tuple, short: int, resized: Tuple, corner: Tuple
) -> None:
    """torchvision's Resize(256, bicubic), then CenterCrop(224)."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3))
    image = noise.astype(np.uint8)
    assert short == int(224 / 0.875)
    whole = Image.fromarray(image).resize(resized[::-1], Image.BICUBIC)
    top, left = corner
    goal = np.asarray(whole)[top : top + 224, left : left + 224]
    found = files.resize_middle(image, 224, 224, 0.875)
    assert found.shape == (224, 224, 3)
    assert np.array_equal(found, goal)
    squeezed = Image.fromarray(image).resize((40, 32), Image.BICUBIC)
    found = files.resize_middle(image, 32, 40, None)
    assert np.array_equal(found, np.asarray(squeezed))


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    write_image(picture(), tmp_path / 'deep/x.png')
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['x.png']
    (tmp_path / 'none.png').mkdir()
    with pytest.raises(OSError, match=r'none\.png'):
        write_image(picture(), tmp_path / 'none.png')
    with pytest.raises(OSError, match='cannot write'):
        write_image(np.zeros((0, 0, 3), np.uint8), tmp_path / 'empty.png')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['deep', 'none.png']


def test_paths_that_the_locale_cannot_spell(tmp_path: Path) -> None:
    """OpenCV ended the process there, without a word."""
    code = (
        'import os, sys; from pathlib import Path; from mmconvnext import '
        'files; folder = Path(sys.argv[1]); image = files.read_image(folder '
        '/ os.listdir(folder)[0]); files.write_image(image, folder / '
        "sys.argv[2]); text = folder / f'{sys.argv[2]}.txt'; "
        'files.write_text(sys.argv[2], text); '
        'print(len(files.find_images(folder)))'
    )
    write_image(picture(), tmp_path / '図.png')
    locale = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path), 'ü 図.png'],
        env={**os.environ, **locale},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, '2'), done.stderr
    assert sorted(os.listdir(tmp_path)) == [
        'ü 図.png',
        'ü 図.png.txt',
        '図.png',
    ]
    assert np.array_equal(read_image(tmp_path / 'ü 図.png'), picture())
    text = (tmp_path / 'ü 図.png.txt').read_text(encoding='utf-8')
    assert text == 'ü 図.png'


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'x.txt'
    write_text('naïve – 漢字', path)
    assert path.read_text(encoding='utf-8') == 'naïve – 漢字'
    with pytest.raises(KeyError), whole_file(path) as part:
        assert part.suffix == '.txt'
        part.write_text('half', encoding='utf-8')
        raise KeyError
    assert path.read_text(encoding='utf-8') == 'naïve – 漢字'
    assert os.listdir(tmp_path) == ['x.txt']


def test_files_have_the_rights_that_the_user_gives_to_new_ones(
    tmp_path: Path,
) -> None:
    write_text('', tmp_path / 'ours')
    (tmp_path / 'plain').touch()
    modes = [path.stat().st_mode for path in tmp_path.iterdir()]
    assert modes[0] == modes[1]


def test_nothing_else_writes_whole_files_or_reads_images() -> None:
    root = Path(__file__).parents[1]
    # The checker opens headers of images, and label maps.
    own = {root / 'mmconvnext/files.py'}
    # The example is copied into programs that do not have this package.
    own.add(root / 'mmconvnext/deploy/example.py')
    own.update((root / 'mmconvnext/data').glob('*.py'))
    other = re.compile(
        r'os\.replace|mkstemp|NamedTemporaryFile|cv2\.(imread|imwrite)'
        r'|Image\.open|\.partial\b[^(]'
    )
    found = [
        str(path)
        for folder in ('mmconvnext', 'tools')
        for path in (root / folder).rglob('*.py')
        if path not in own and other.search(path.read_text(encoding='utf-8'))
    ]
    assert not found
