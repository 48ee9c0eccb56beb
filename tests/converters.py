"""Scenes written in every label format that users bring.

Drawn scenes serve the tests; the same writers turned CamVid and nuclei into
each format once, by hand.
"""

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence
from xml.sax.saxutils import escape

import cv2
import numpy as np
from labelled import write, write_json

CLASSES = ('box', 'tent', 'disc')
COLOURS = ((0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200))
SIZES = ((96, 128), (128, 96), (100, 140))  # height, width


class Thing(NamedTuple):
    """An object: its class and its outline [x, y, x, y, ...]."""

    name: str
    polygon: List[float]

    @property
    def box(self) -> List[float]:
        xs, ys = self.polygon[::2], self.polygon[1::2]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


class Scene(NamedTuple):
    """An image (BGR) with its objects and its label map (0 is nothing)."""

    name: str
    image: np.ndarray
    things: List[Thing]
    label: np.ndarray


OUTLINES: Dict[str, Callable] = {
    'box': lambda x, y, s: [x, y, x + s, y, x + s, y + s, x, y + s],
    'tent': lambda x, y, s: [x, y + s, x + s / 2, y, x + s, y + s],
    'disc': lambda x, y, s: [
        value
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)
        for value in (
            x + s * (1 + np.cos(angle)) / 2,
            y + s * (1 + np.sin(angle)) / 2,
        )
    ],
}


def draw(count: int = 12, classes: Sequence[str] = CLASSES) -> List[Scene]:
    """Draw scenes of two or three objects that do not touch."""
    return [_scene(i, classes) for i in range(count)]


def _scene(number: int, classes: Sequence[str]) -> Scene:
    rng = np.random.default_rng(number)
    height, width = SIZES[number % len(SIZES)]
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    label = np.zeros((height, width), np.uint8)
    things = []
    for place in range(2 + number % 2):
        kind = (number + place) % len(classes)
        side = int(rng.integers(18, 28))
        outline = list(OUTLINES.values())[kind % 3]
        x, y = 4 + 30 * place, 6 + int(rng.integers(0, 40))
        points = [float(value) for value in outline(x, y, side)]
        things.append(Thing(classes[kind], points))
        corners = [np.rint(np.reshape(points, (-1, 2))).astype(np.int32)]
        cv2.fillPoly(image, corners, COLOURS[1 + kind % 3])
        cv2.fillPoly(label, corners, 1 + kind)
    return Scene(f'scene {number:02d}', image, things, label)


def classes_of(scenes: Sequence[Scene]) -> List[str]:
    found = {thing.name for scene in scenes for thing in scene.things}
    return [n for n in CLASSES if n in found] or sorted(found)


def write_images(
    root: Path, scenes: Sequence[Scene], suffixes: Sequence[str] = ('.jpg',)
) -> List[str]:
    names = [
        f'{scene.name}{suffixes[i % len(suffixes)]}'
        for i, scene in enumerate(scenes)
    ]
    for scene, name in zip(scenes, names):
        write(root / name, scene.image)
    return names


def to_coco(root: Path, scenes: Sequence[Scene]) -> None:
    """Write one file of a name of its own, its ids far apart."""
    names, classes = write_images(root / 'pics', scenes), classes_of(scenes)
    images, rows = [], []
    for i, (scene, name) in enumerate(zip(scenes, names)):
        height, width = scene.label.shape
        images.append(
            dict(id=10 * i, file_name=name, width=width, height=height)
        )
        rows += [
            dict(
                id=1000 * i + j,
                image_id=10 * i,
                category_id=7 + 3 * classes.index(thing.name),
                bbox=thing.box,
                area=thing.box[2] * thing.box[3],
                iscrowd=0,
                segmentation=[thing.polygon],
            )
            for j, thing in enumerate(scene.things)
        ]
    categories = [
        dict(id=7 + 3 * i, name=name) for i, name in enumerate(classes)
    ]
    content = dict(images=images, annotations=rows, categories=categories)
    write_json(root / 'export (2).json', content)


def to_voc(root: Path, scenes: Sequence[Scene]) -> None:
    """Write an XML file an image, pixels from 1, and ImageSets."""
    names = write_images(root / 'JPEGImages', scenes)
    for scene, name in zip(scenes, names):
        height, width = scene.label.shape
        objects = ''.join(map(_voc_object, scene.things))
        text = (
            f'<annotation><filename>{escape(name)}</filename><size>'
            f'<width>{width}</width><height>{height}</height>'
            f'<depth>3</depth></size>{objects}</annotation>'
        )
        path = root / 'Annotations' / f'{scene.name}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')


def _voc_object(thing: Thing) -> str:
    x, y, width, height = thing.box
    sides = dict(xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
    box = ''.join(f'<{key}>{value}</{key}>' for key, value in sides.items())
    return (
        f'<object><name>{escape(thing.name)}</name><bndbox>{box}</bndbox>'
        '</object>'
    )


def to_yolo(
    root: Path, scenes: Sequence[Scene], polygons: bool = False
) -> None:
    """Write shares of the image, divided into train and val, data.yaml."""
    classes = classes_of(scenes)
    for part, half in _halves(scenes):
        write_images(root / 'images' / part, half)
        for scene in half:
            height, width = scene.label.shape
            rows = []
            for thing in scene.things:
                values = thing.polygon
                if not polygons:
                    x, y, w, h = thing.box
                    values = [x + w / 2, y + h / 2, w, h]
                shares = [
                    f'{value / (width, height)[i % 2]:.6f}'
                    for i, value in enumerate(values)
                ]
                number = classes.index(thing.name)
                rows.append(' '.join([str(number), *shares]))
            path = root / 'labels' / part / f'{scene.name}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\n'.join(rows))
    names = dict(enumerate(classes))
    text = f'train: images/train\nval: images/val\nnames: {names}\n'
    (root / 'data.yaml').write_text(text, encoding='utf-8')


def to_yolo_polygons(root: Path, scenes: Sequence[Scene]) -> None:
    to_yolo(root, scenes, polygons=True)


def _halves(scenes: Sequence[Scene]) -> Iterator:
    cut = len(scenes) * 3 // 4
    yield 'train', scenes[:cut]
    yield 'val', scenes[cut:]


def to_labelme(root: Path, scenes: Sequence[Scene]) -> None:
    """Write a JSON file beside each image."""
    names = write_images(root, scenes)
    for scene, name in zip(scenes, names):
        height, width = scene.label.shape
        shapes = [
            dict(
                label=thing.name,
                shape_type='polygon',
                points=np.reshape(thing.polygon, (-1, 2)).tolist(),
            )
            for thing in scene.things
        ]
        content = dict(
            version='5.4.1',
            flags={},
            shapes=shapes,
            imagePath=name,
            imageData=None,
            imageHeight=height,
            imageWidth=width,
        )
        write_json(root / f'{scene.name}.json', content)


MIXED = ('.jpg', '.JPG', '.png', '.tif')


def to_maps(root: Path, scenes: Sequence[Scene]) -> None:
    """Write ADE20K's layout: indices, images of mixed endings."""
    for part, half in _halves(scenes):
        part = {'train': 'training', 'val': 'validation'}[part]
        write_images(root / 'images' / part, half, MIXED)
        for scene in half:
            path = root / 'annotations' / part / f'{scene.name}.png'
            write(path, scene.label)


def to_palette(root: Path, scenes: Sequence[Scene]) -> None:
    """Write palette PNGs as VOC does, and classes.txt."""
    from PIL import Image

    write_images(root / 'JPEGImages', scenes)
    flat = [part for colour in COLOURS for part in colour]
    for scene in scenes:
        path = root / 'SegmentationClass' / f'{scene.name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(scene.label).convert('L')
        picture = Image.frombytes('P', picture.size, picture.tobytes())
        picture.putpalette(flat)
        picture.save(path)
    text = '\n'.join(['background', *classes_of(scenes)])
    (root / 'classes.txt').write_text(text, encoding='utf-8')


def to_colours(root: Path, scenes: Sequence[Scene]) -> None:
    """Write colour maps as CamVid does: x_L.png and label_colors.txt."""
    write_images(root / 'raw', scenes, ('.png',))
    lut = np.array(COLOURS, np.uint8)[:, ::-1]
    for scene in scenes:
        write(root / 'labelled' / f'{scene.name}_L.png', lut[scene.label])
    rows = [
        '{} {} {}\t{}'.format(*colour, name)
        for colour, name in zip(COLOURS, ['Void', *classes_of(scenes)])
    ]
    (root / 'label_colors.txt').write_text('\n'.join(rows))


class Format(NamedTuple):
    """A writer, and what new_project has to make of its folder."""

    write: Callable[[Path, Sequence[Scene]], None]
    name: str
    task: str
    classes: Sequence[str] = CLASSES


FORMATS: Dict[str, Format] = {
    'coco': Format(to_coco, 'COCO JSON', 'det'),
    'voc': Format(to_voc, 'Pascal VOC XML', 'boxes', sorted(CLASSES)),
    'yolo boxes': Format(to_yolo, 'YOLO text', 'boxes'),
    'yolo polygons': Format(to_yolo_polygons, 'YOLO text', 'det'),
    'labelme': Format(to_labelme, 'labelme', 'det', sorted(CLASSES)),
    'label maps': Format(
        to_maps, 'label maps', 'seg', ('class_1', 'class_2', 'class_3')
    ),
    'palette': Format(
        to_palette, 'label maps', 'seg', ('background', *CLASSES)
    ),
    'colours': Format(to_colours, 'label maps', 'seg'),
}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'))
