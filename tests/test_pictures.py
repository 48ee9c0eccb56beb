"""Panels and captions, on pictures drawn here."""

from pathlib import Path

import pytest
from drawn import picture

from mmconvnext.pictures import (
    CAPTION,
    GAP,
    Drawn,
    captioned,
    find_images,
    read_image,
    side_by_side,
    write_image,
)


def test_panels_lie_side_by_side() -> None:
    row = side_by_side([picture(value=v) for v in (10, 20, 30)])
    assert row.shape == (40, 3 * 60 + 2 * GAP, 3)
    assert [row[0, 68 * i, 0] for i in range(3)] == [10, 20, 30]
    assert (row[:, 60:68] == 255).all()


def test_captions_stand_above_and_the_legend_below() -> None:
    panels = {'input': picture(), 'ground truth': picture()}
    plain = captioned(Drawn(panels))
    assert plain.shape == (40 + CAPTION, 128, 3)
    strip = plain[:CAPTION]
    assert (strip < 100).any() and (strip[:, 60:68] == 255).all()
    names = {f'class {i}': (0, 200, i) for i in range(7)}
    whole = captioned(Drawn(panels, legend=names))
    # One name of this length fits beside another in 128 pixels: 7 rows.
    assert whole.shape == (40 + 8 * CAPTION, 128, 3)
    for i in range(7):
        block = whole[40 + (i + 1) * CAPTION :][:CAPTION]
        assert (block == (0, 200, i)).all(-1).any()


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


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    write_image(picture(), tmp_path / 'deep/x.png')
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['x.png']
    (tmp_path / '.none.png').mkdir()
    with pytest.raises(OSError, match='cannot write'):
        write_image(picture(), tmp_path / 'none.png')
