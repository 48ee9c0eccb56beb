"""Images of any folder, including damaged files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmconvnext.files import find_images
from mmconvnext.pretrain.dataset import (
    DamagedImageError,
    ImageFolderDataset,
    LoadImage,
    PackImage,
    read_skipped,
)
from mmconvnext.training.augmentation import RandomFlip, RandomResizedCrop

PIPELINE = [LoadImage(), RandomResizedCrop(32), PackImage()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders, a nested folder, no folder; five good images."""
    rng = np.random.default_rng(0)
    for name in ('a/1.jpg', 'a/2.JPEG', 'b/c/3.png', '4.jpg', 'z.webp'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 255, (40, 60, 3), np.uint8)
        assert cv2.imwrite(str(path), image)
    (tmp_path / 'a/notes.txt').write_text('no image')
    return tmp_path


def damage(folder: Path) -> list:
    """One file of each kind of damage; returns their names, sorted."""
    whole = (folder / '4.jpg').read_bytes()
    (folder / 'b/truncated.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'b/empty.png').write_bytes(b'')
    (folder / 'b/text.jpg').write_text('not an image')
    png = (folder / 'b/c/3.png').read_bytes()
    (folder / 'b/broken.png').write_bytes(png[:60] + b'x' * 40 + png[100:])
    names = ('broken.png', 'empty.png', 'text.jpg', 'truncated.jpg')
    return [str(folder / 'b' / name) for name in names]


def dataset(folder: Path, **kwargs) -> ImageFolderDataset:
    return ImageFolderDataset(
        data_root=str(folder), pipeline=PIPELINE, **kwargs
    )


def test_finds_images_at_any_depth(folder: Path):
    names = [
        path.relative_to(folder).as_posix() for path in find_images(folder)
    ]
    assert names == ['4.jpg', 'a/1.jpg', 'a/2.JPEG', 'b/c/3.png', 'z.webp']
    assert len(dataset(folder)) == 5
    below = dataset(folder, data_prefix=dict(img_path='a'))
    assert len(below) == 2


@pytest.mark.parametrize('name', ['nowhere', 'empty'])
def test_a_folder_without_images_is_named(name: str, tmp_path: Path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=f'no image .*{name}'):
        dataset(tmp_path / name)


def test_every_image_is_a_tensor(folder: Path):
    for item in dataset(folder):
        assert item['inputs'].shape == (3, 32, 32)
        assert item['inputs'].dtype == torch.uint8


def test_channels_are_rgb(tmp_path: Path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 2] = 200  # OpenCV's red
    cv2.imwrite(str(tmp_path / 'red.png'), image)
    (item,) = dataset(tmp_path)
    assert item['inputs'].flatten(1).float().mean(1).tolist() == [200, 0, 0]


def test_damaged_files_are_skipped_and_listed(folder: Path, tmp_path: Path):
    bad = damage(folder)
    skipped = tmp_path / 'skipped.txt'
    data = dataset(folder, skipped_file=str(skipped))
    assert len(data) == 9
    for _ in range(2):
        items = [data[i]['inputs'] for i in range(9)]
    assert len(items) == 9
    assert read_skipped(str(skipped)) == bad
    # Each once, with its reason.
    lines = skipped.read_text().splitlines()
    assert len(lines) == 4
    assert all(len(line.split('\t')) == 2 for line in lines)
    # Another worker does not list them again.
    again = dataset(folder, skipped_file=str(skipped))
    assert [again[i] for i in range(9)]
    assert len(skipped.read_text().splitlines()) == 4


def test_a_folder_of_damaged_files_stops(tmp_path: Path):
    for i in range(4):
        (tmp_path / f'{i}.jpg').write_bytes(b'')
    with pytest.raises(RuntimeError, match='files in a row cannot be read'):
        dataset(tmp_path, max_refetch=3)[0]


def test_load_image_names_the_reason(folder: Path):
    for path in damage(folder):
        with pytest.raises(DamagedImageError, match=r'\w'):
            LoadImage()(dict(img_path=path))


def test_crop_keeps_to_its_ranges():
    crop = RandomResizedCrop((64, 128), area_range=(0.2, 0.5))
    np.random.seed(0)
    for _ in range(300):
        top, left, h, w = crop.draw(300, 500)
        assert 0 <= top <= 300 - h
        assert 0 <= left <= 500 - w
        assert 0.19 < h * w / (300 * 500) < 0.51
        # The result is twice as wide as high.
        assert 2 * 0.74 < w / h < 2 * 1.35


def test_crop_of_a_sliver_is_its_middle():
    crop = RandomResizedCrop(32, area_range=(1.0, 1.0))
    assert crop.draw(10, 400) == (0, 195, 10, 10)
    assert crop.draw(400, 10) == (195, 0, 10, 10)


def test_crop_is_what_it_draws():
    image = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60, 1).repeat(3, 2)
    crop = RandomResizedCrop((10, 20))
    crop.draw = lambda *size: (5, 7, 10, 20)
    out = crop(dict(img=image))
    assert np.array_equal(out['img'], image[5:15, 7:27])
    assert out['img_shape'] == (10, 20)


@pytest.mark.parametrize('name', ['area_range', 'aspect_range'])
def test_bad_ranges_are_named(name: str):
    with pytest.raises(ValueError, match=name):
        RandomResizedCrop(32, **{name: (0.5, 0.2)})


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_flip_mirrors_left_to_right(prob: float):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    found = PackImage()(RandomFlip(prob)(dict(img=image)))['inputs']
    expected = image[:, ::-1] if prob else image
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_flip_is_as_frequent_as_asked():
    image = np.array([[[0], [1]]], np.uint8)
    flips = [RandomFlip(0.3)(dict(img=image))['img'][0, 0] for _ in range(999)]
    # Five standard deviations.
    assert abs(np.mean(flips) - 0.3) < 5 * (0.21 / 999) ** 0.5
