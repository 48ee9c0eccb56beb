"""Folders as they come: each gives a report or one line, nothing half."""

from pathlib import Path
from typing import Callable, NamedTuple, Tuple

import cv2
import numpy as np
import pytest
from converters import (
    COLOURS,
    FORMATS,
    Scene,
    Thing,
    draw,
    read_json,
    to_coco,
    to_labelme,
    to_maps,
    to_voc,
    to_yolo,
    write_images,
)
from labelled import label, write, write_json
from mmengine.config import Config

from mmconvnext.data import check
from mmconvnext.data.labels import Wishes
from mmconvnext.data.project import Done, Order, make
from mmconvnext.data.settings import Machine

ROOT = Path(__file__).parents[2]
CPU = Machine('', 8 << 30, False, False, 2)


def build(tmp_path: Path, **options: object) -> Done:
    return make(
        Order(
            tmp_path / 'folder',
            tmp_path / 'mine.py',
            ROOT / 'configs/_base_',
            arch='atto',
            **options,
        ),
        CPU,
    )


def images_only(root: Path) -> None:
    write_images(root, draw(3))


def labels_only(root: Path) -> None:
    to_labelme(root, draw(3))
    for path in root.glob('*.jpg'):
        path.unlink()


def text_only(root: Path) -> None:
    root.mkdir()
    (root / 'notes.txt').write_text('nothing')


def maps_of(root: Path, *values: int) -> None:
    """Write bands of the values as maps of noise."""
    scenes = draw(4)
    write_images(root / 'images', scenes)
    for scene in scenes:
        path = root / 'masks' / f'{scene.name}.png'
        write(path, label(*values, size=scene.label.shape))


def photographs_as_maps(root: Path) -> None:
    scenes = draw(4)
    write_images(root / 'images', scenes)
    rng = np.random.default_rng(0)
    for scene in scenes:
        noise = rng.integers(0, 256, (*scene.label.shape, 3))
        write(root / 'masks' / f'{scene.name}.png', noise)


def outside(root: Path) -> None:
    """Write all boxes beyond the right border."""
    to_coco(root, draw(4))
    path = root / 'export (2).json'
    content = read_json(path)
    for row in content['annotations']:
        row['bbox'][0] += 500
    write_json(path, content)


def single(root: Path) -> None:
    to_labelme(root, draw(1))


def no_utf8(root: Path) -> None:
    to_yolo(root, draw(4))
    (root / 'classes.txt').write_bytes('grün\n'.encode('latin-1'))
    (root / 'data.yaml').unlink()


class Refused(NamedTuple):
    write: Callable[[Path], object]
    words: str
    options: dict = {}


REFUSED = {
    'an empty folder': Refused(lambda root: root.mkdir(), 'no image in it'),
    'no folder': Refused(lambda root: None, 'is no folder'),
    'text alone': Refused(text_only, r'no image in it \(1 files\)'),
    'images without labels': Refused(
        images_only, '3 images and no labels that are known here: COCO JSON'
    ),
    'labels without images': Refused(labels_only, 'no image in it'),
    'one labelled image': Refused(single, '1 labelled image: two at least'),
    'maps of one value': Refused(
        lambda root: maps_of(root, 3), 'training needs two classes'
    ),
    'one class and zero ignored': Refused(
        lambda root: maps_of(root, 0, 1),
        'pass --zero class',
        dict(wishes=Wishes(zero='ignore')),
    ),
    'photographs as maps': Refused(
        photographs_as_maps, 'more than 256: this is a photograph'
    ),
    'all boxes outside': Refused(outside, 'no object that can be used'),
    'more names than values': Refused(
        lambda root: maps_of(root, 10, 20, 30),
        '2 names of classes .* 3 values',
        dict(wishes=Wishes(('a', 'b'))),
    ),
    'text in another encoding': Refused(no_utf8, 'save it as UTF-8'),
    'masks of boxes': Refused(
        lambda root: to_voc(root, draw(4)),
        'a box and no outline; --task boxes',
        dict(task='det'),
    ),
    'objects of maps': Refused(
        lambda root: to_maps(root, draw(4)),
        'do not separate objects of a class; pass --task seg',
        dict(task='det'),
    ),
    'an arch that is none': Refused(
        lambda root: to_voc(root, draw(4)),
        "arch 'xlarge' is not a ConvNeXt V2",
        dict(arch='xlarge'),
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_one_line_and_nothing_written(name: str, tmp_path: Path) -> None:
    case = REFUSED[name]
    case.write(tmp_path / 'folder')
    with pytest.raises((ValueError, FileNotFoundError), match=case.words) as e:
        options = {'arch': 'atto', **case.options}
        order = Order(
            tmp_path / 'folder',
            tmp_path / 'mine.py',
            ROOT / 'configs/_base_',
            **options,
        )
        make(order, CPU)
    assert '\n' not in str(e.value)
    assert {path.name for path in tmp_path.iterdir()} <= {'folder'}


def one_class(root: Path) -> None:
    to_coco(root, [s._replace(things=s.things[:1]) for s in draw(4, ['a'])])


def two_spellings(root: Path) -> None:
    scenes = draw(12)
    thing = scenes[0].things[0]
    scenes[0].things[0] = thing._replace(name='Box ')
    to_labelme(root, scenes)


def damaged(root: Path) -> None:
    to_labelme(root, draw(6))
    path = root / 'scene 02.jpg'
    path.write_bytes(path.read_bytes()[:500])


def half_outside(root: Path) -> None:
    scenes = draw(6)
    far = [900.0, 900.0, 950.0, 900.0, 950.0, 950.0, 900.0, 950.0]
    edge = [60.0, 5.0, 300.0, 5.0, 300.0, 40.0, 60.0, 40.0]
    scenes[0].things[:] = [*scenes[0].things, Thing('box', far)]
    scenes[1].things[:] = [*scenes[1].things, Thing('box', edge)]
    to_labelme(root, scenes)


def strange_names(root: Path) -> None:
    names = ('тест один', '测试 2', 'naïve é', "it's {3} #%")
    scenes = [
        scene._replace(
            name=f'{name} {i}',
            things=[t._replace(name=f'{t.name} ünï') for t in scene.things],
        )
        for i, (name, scene) in enumerate(zip(names * 2, draw(8)))
    ]
    to_voc(root / 'папка один', scenes)


def red_green_masks(root: Path) -> None:
    """Write colours without a table."""
    scenes = draw(6)
    write_images(root / 'images', scenes)
    lut = np.array(COLOURS, np.uint8)
    for scene in scenes:
        write(root / 'masks' / f'{scene.name}.png', lut[scene.label])


def other_sizes(root: Path) -> None:
    to_maps(root, draw(8))
    path = root / 'annotations/training/scene 01.png'
    write(path, cv2.resize(cv2.imread(str(path), 0), (30, 20)))


def partly_labelled(root: Path) -> None:
    to_yolo(root, draw(8))
    (root / 'labels/train/scene 01.txt').unlink()


def wrong_rows(root: Path) -> None:
    to_yolo(root, draw(8))
    path = root / 'labels/train/scene 05.txt'
    path.write_text('0 0.5 0.5 0.2 0.2\n1 300 200 50 60\n')


def more_indices(root: Path) -> None:
    to_yolo(root, draw(8))
    (root / 'data.yaml').write_text('names: [box]')


class Odd(NamedTuple):
    """A folder that can be used, and the oddity that has to be named."""

    write: Callable[[Path], object]
    words: Tuple[str, ...]


REPORTED = {
    'one class': Odd(one_class, ()),
    'two spellings': Odd(
        two_spellings, ("classes 'box', 'Box '", '--rename "Box =box"')
    ),
    'a damaged image': Odd(damaged, ('scene 02.jpg (damaged', 'left out')),
    'a box outside': Odd(
        half_outside, ('a box outside of its image, 1 in all', 'scene 00')
    ),
    'a box half outside': Odd(
        half_outside, ('reaches beyond its image, 1 in all', 'scene 01')
    ),
    'names of many languages': Odd(strange_names, ()),
    'colours without a table': Odd(red_green_masks, ()),
    'masks of 0 and 255': Odd(lambda root: maps_of(root, 0, 255), ()),
    'a map of another size': Odd(
        other_sizes, ('scene 01.png', '30 x 20', 'the size of')
    ),
    'images without a label': Odd(
        partly_labelled, ('1 images without a label', 'scene 01')
    ),
    'rows in pixels': Odd(
        wrong_rows, ("the row '1 300 200 50 60'", 'scene 05.txt')
    ),
    'indices without a name': Odd(
        more_indices, ('1 names, and labels up to 2', 'class_2, class_3')
    ),
}


@pytest.mark.parametrize('name', REPORTED)
def test_a_report_names_the_file(name: str, tmp_path: Path) -> None:
    case = REPORTED[name]
    case.write(tmp_path / 'folder')
    done = build(tmp_path, html=True)
    said = [str(finding) for finding in done.findings]
    if case.words:
        found = [s for s in said if all(w in s for w in case.words)]
        assert found, said
    cfg = Config.fromfile(done.config)
    assert not [f for f in check(cfg) if f.severity == 'error']
    text = done.page.read_text(encoding='utf-8')
    assert 'id="odd"' in text
    for word in case.words:
        assert word in _unescaped(text)


def _unescaped(text: str) -> str:
    import html

    return html.unescape(text)


def square(start: float) -> Thing:
    end = start + 20
    return Thing('box', [start, start, end, start, end, end, start, end])


def test_pixels_count_from_one_or_from_zero(tmp_path: Path) -> None:
    things = [square(0.0), square(30.0)]
    expected = [[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 20.0, 20.0]] * 4
    scenes = [scene._replace(things=things) for scene in draw(4)]
    to_voc(tmp_path / 'folder', scenes)
    build(tmp_path)
    assert boxes(tmp_path) == expected
    for path in (tmp_path / 'folder').rglob('*.xml'):
        text = path.read_text(encoding='utf-8')
        for old, new in (('>1.0<', '>0.0<'), ('>31.0<', '>30.0<')):
            text = text.replace(old, new)
        path.write_text(text, encoding='utf-8')
    build(tmp_path, overwrite=True)
    assert boxes(tmp_path) == expected


def boxes(root: Path) -> list:
    rows = [
        row
        for part in ('train', 'val')
        for row in read_json(root / f'mine/{part}.json')['annotations']
    ]
    return [row['bbox'] for row in rows]


def test_a_format_is_found_below_other_files(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    FORMATS['voc'].write(folder / 'deep/er', draw(4))
    write_json(folder / 'settings.json', dict(colour='red'))
    (folder / 'README.txt').write_text('hello')
    assert build(tmp_path).report[0] == 'format: Pascal VOC XML'


def test_scenes_of_the_tests_are_whole() -> None:
    scene: Scene = draw(1)[0]
    assert set(np.unique(scene.label)) == {0, 1, 2}
