"""Images are found and read, files are written whole."""

from pathlib import Path

import pytest
from drawn import picture

from mmconvnext.files import find_images, read_image, write_image


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
