"""The tiles that chain.py makes of label maps."""

from pathlib import Path

import chain
import cv2
import numpy as np
import pytest

SKY, CAR = 1, 9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two by two tiles: of sky, of a car, of both and neither, unlabelled."""
    tile = chain.TILE
    label = np.zeros((2 * tile, 2 * tile), np.uint8)
    label[:tile, :tile] = SKY
    label[:tile, tile:] = CAR
    label[tile:, : int(0.37 * tile)] = SKY
    label[tile:, int(0.37 * tile) : int(0.7 * tile)] = CAR
    for split in chain.SPLITS.values():
        for folder, content, ending in (
            ('images', np.stack([20 * label] * 3, -1), 'jpg'),
            ('annotations', label, 'png'),
        ):
            path = tmp_path / folder / split / f'a.{ending}'
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), content)
    return tmp_path


def test_a_tile_has_the_class_that_covers_it(root: Path) -> None:
    found = chain.tiles(root, 'training')
    image = root / 'images/training/a.jpg'
    assert found == {SKY: [(image, 0, 0)], CAR: [(image, 0, chain.TILE)]}


def test_tiles_become_class_folders(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, 'FEWEST', 1)
    assert chain.write_tiles(root, tmp_path / 'out') == 2
    for split in chain.SPLITS:
        for name, value in (('sky', SKY), ('car', CAR)):
            (path,) = (tmp_path / 'out' / split / name).iterdir()
            tile = cv2.imread(str(path))
            assert tile.shape == (chain.TILE, chain.TILE, 3)
            assert abs(tile.mean() - 20 * value) < 3
