"""Draw a small data set for trying the recipes: no download, seconds on CPU.

Scenes of textured shapes on grass, sand and water, some shapes hiding parts
of others. The same scenes are written twice, as COCO instances and as
ADE20K label maps::

    data/demo/coco/{train2017,val2017}/*.jpg
    data/demo/coco/annotations/instances_{train,val}2017.json
    data/demo/ade20k/images/{training,validation}/*.jpg
    data/demo/ade20k/annotations/{training,validation}/*.png

Label maps hold 0 where nothing is labelled and 1 + the index in ``CLASSES``
elsewhere; ``ade20k/classes.txt`` names them, ``ade20k/label_colors.txt`` has
colours to draw them in. COCO categories are the objects, numbered from 1.

    python tools/make_demo_data.py --out data/demo --train 160 --val 40
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import cv2
import numpy as np

# Raised when the same arguments would draw other files than before.
VERSION = 4
STAMP = 'demo.json'
# split: its COCO folder, its ADE20K folder
SPLITS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}
# width, height
SIZES = ((208, 160), (208, 144), (192, 176), (160, 208))
JPEG_QUALITY = 80
OVERSAMPLING = 3
# Smallest visible part of an object, in pixels and as a share of its size.
MIN_AREA = 60
MIN_VISIBLE = 0.75

Array = np.ndarray
Colour = Tuple[int, int, int]
Light = Tuple[float, float]
Random = np.random.Generator


class Ground(NamedTuple):
    """A ground class: its grain lies between a dark and a light colour.

    Colours are hue (0-179), saturation and value (0-255), as OpenCV has them.
    """

    palette: Colour
    dark: Colour
    light: Colour
    grain: Callable[[Random, Tuple[int, int]], Array]


class Thing(NamedTuple):
    """An object class: an outline filled with a pattern of two colours.

    The pattern maps coordinates in the object's own frame, which its outline
    fills from -1 to 1, to the share of the second colour.
    """

    palette: Colour
    hue: int
    outline: Callable[[Random], List[Array]]
    pattern: Callable[[Array, Array, float], Array]


class Scene(NamedTuple):
    """An image (BGR), its label map, and its objects with visible masks."""

    image: Array
    label: Array
    names: List[str]
    masks: List[Array]


class Piece(NamedTuple):
    """An object put into a scene, before it is painted."""

    name: str
    centre: Tuple[float, float]
    radius: float
    angle: float
    cover: Array


def noise(rng: Random, shape: Tuple[int, int], rows: int, cols: int) -> Array:
    """Smooth noise of about unit range, in cells of rows x cols pixels."""
    height, width = shape
    grid = (height // rows + 3, width // cols + 3)
    coarse = rng.standard_normal(grid, dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def grass(rng: Random, shape: Tuple[int, int]) -> Array:
    blades = noise(rng, shape, 7, 2)
    return 0.45 + 0.22 * blades + 0.18 * noise(rng, shape, 30, 30)


def sand(rng: Random, shape: Tuple[int, int]) -> Array:
    rows, cols = np.indices(shape, dtype=np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(9, 16)
    along = rows * math.sin(angle) + cols * math.cos(angle)
    bends = 2 * noise(rng, shape, 40, 40)
    ripples = np.sin(along * 2 * math.pi / period + bends)
    return 0.55 + 0.13 * ripples + 0.1 * noise(rng, shape, 1, 1)


def water(rng: Random, shape: Tuple[int, int]) -> Array:
    waves = noise(rng, shape, 4, 16) + noise(rng, shape, 9, 40)
    return 0.35 + 0.2 * waves + 0.4 * np.clip(waves - 1.3, 0, 1)


def polygon(angles: Array, radii: Array) -> Array:
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[..., None]


def circle(radius: float) -> Array:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return polygon(angles, np.full(48, radius))


def disc(rng: Random) -> List[Array]:
    return [circle(1.0) * [1, rng.uniform(0.8, 1)]]


def box(rng: Random) -> List[Array]:
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return [corners * [0.85, rng.uniform(0.5, 0.85)]]


def triangle(rng: Random) -> List[Array]:
    angles = np.pi * np.array([-1 / 2, 1 / 6, 5 / 6])
    return [polygon(angles + rng.uniform(-0.2, 0.2, 3), np.ones(3))]


def star(rng: Random) -> List[Array]:
    inner = rng.uniform(0.38, 0.5)
    return [polygon(np.arange(10) * np.pi / 5, np.array([1, inner] * 5))]


def ring(rng: Random) -> List[Array]:
    return [circle(1.0), circle(rng.uniform(0.45, 0.65))]


def cross(rng: Random) -> List[Array]:
    arm = rng.uniform(0.24, 0.38)
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    turn = np.array([[0, 1], [-1, 0]])
    turns = [np.linalg.matrix_power(turn, i) for i in range(4)]
    return [np.concatenate([quarter @ t for t in turns])]


def steep(wave: Array) -> Array:
    """Sharpen a wave into two levels with soft edges between them."""
    return 0.5 + 0.5 * np.tanh(5 * wave)


def sectors(x: Array, y: Array, phase: float) -> Array:
    return steep(np.sin(3 * np.arctan2(y, x) + phase))


def stripes(x: Array, y: Array, phase: float) -> Array:
    return steep(np.sin(8 * y + phase))


def checks(x: Array, y: Array, phase: float) -> Array:
    return steep(2 * np.sin(6 * x + phase) * np.sin(6 * y + phase))


def dots(x: Array, y: Array, phase: float) -> Array:
    return steep(np.cos(11 * x + phase) + np.cos(11 * y + phase) - 0.9)


def glow(x: Array, y: Array, phase: float) -> Array:
    return np.clip(1 - 1.4 * np.hypot(x, y), 0, 1)


GROUNDS: Dict[str, Ground] = {
    'grass': Ground((88, 160, 60), (52, 190, 70), (36, 150, 190), grass),
    'sand': Ground((226, 200, 140), (15, 120, 150), (20, 70, 245), sand),
    'water': Ground((70, 140, 200), (108, 200, 110), (95, 90, 240), water),
}
THINGS: Dict[str, Thing] = {
    'disc': Thing((220, 50, 50), 0, disc, sectors),
    'box': Thing((150, 90, 40), 14, box, checks),
    'triangle': Thing((150, 70, 190), 132, triangle, stripes),
    'star': Thing((250, 210, 30), 26, star, glow),
    'ring': Thing((255, 130, 190), 160, ring, sectors),
    'cross': Thing((30, 180, 170), 82, cross, dots),
}
GROUND_CLASSES = tuple(GROUNDS)
OBJECT_CLASSES = tuple(THINGS)
CLASSES = GROUND_CLASSES + OBJECT_CLASSES
PALETTE = tuple(row.palette for row in [*GROUNDS.values(), *THINGS.values()])


def to_bgr(colour: Sequence[float]) -> Array:
    """Turn hue (any number), saturation and value into planes of BGR."""
    hue, saturation, value = colour
    pixel = [hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)]
    pixel = np.array([[pixel]], dtype=np.uint8)
    bgr = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)
    return bgr.reshape(3, 1, 1).astype(np.float32) / 255


def mix(share: Array, first: Array, second: Array) -> Array:
    """Blend colours or images, both (3, H, W) or (3, 1, 1)."""
    return first + np.clip(share, 0, 1) * (second - first)


def draw_ground(rng: Random, shape: Tuple[int, int]) -> Tuple[Array, Array]:
    """Paint two or three kinds of ground that meet in soft borders.

    Returns:
        The painting, (3, H, W), and its label map, 0 along the borders.
    """
    names = list(GROUNDS)
    if rng.random() < 0.5:
        names.remove(names[rng.integers(3)])
    fields = np.stack([1.3 * noise(rng, shape, 110, 110) for _ in names])
    weights = np.exp(8 * (fields - fields.max(0)))
    weights /= weights.sum(0)
    image = np.zeros((3, *shape), np.float32)
    for name, weight in zip(names, weights):
        image += weight * paint_ground(rng, shape, GROUNDS[name])
    numbers = np.array([CLASSES.index(n) + 1 for n in names], np.uint8)
    label = numbers[fields.argmax(0)]
    kernel = np.ones((3, 3), np.uint8)
    border = cv2.dilate(label, kernel) != cv2.erode(label, kernel)
    return image, np.where(border, np.uint8(0), label)


def paint_ground(rng: Random, shape: Tuple[int, int], row: Ground) -> Array:
    jitter = rng.normal(0, (3, 12, 12))
    dark, light = (to_bgr(c + jitter) for c in (row.dark, row.light))
    return mix(row.grain(rng, shape), dark, light)


def place(rng: Random, shape: Tuple[int, int]) -> Piece:
    """Choose an object, its size and its place, and find what it covers."""
    height, width = shape
    name = OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))]
    x, y = rng.uniform(0.06, 0.94, 2)
    centre = (x * width, y * height)
    radius = math.exp(rng.uniform(math.log(22), math.log(52)))
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    contours = [
        np.rint((c @ turn * radius + centre) * OVERSAMPLING).astype(np.int32)
        for c in THINGS[name].outline(rng)
    ]
    fine = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), np.uint8)
    cv2.fillPoly(fine, contours, 255)
    cover = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return Piece(name, centre, radius, angle, cover)


def arrange(rng: Random, shape: Tuple[int, int]) -> Tuple[List[Piece], Array]:
    """Put objects one over another, each staying visible in good part.

    Returns:
        The objects from bottom to top, and a map of which is seen where:
        0 for the ground, 1 + the object's index elsewhere.
    """
    pieces: List[Piece] = []
    seen = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(3, 7)):
        piece = place(rng, shape)
        trial = seen.copy()
        trial[piece.cover > 127] = len(pieces) + 1
        needed = [
            max(MIN_AREA, MIN_VISIBLE * np.count_nonzero(p.cover > 127))
            for p in [*pieces, piece]
        ]
        counts = np.bincount(trial.ravel(), minlength=len(needed) + 1)[1:]
        if (counts >= needed).all():
            pieces.append(piece)
            seen = trial
    return pieces, seen


def paint_thing(
    rng: Random, image: Array, piece: Piece, light: Light
) -> Array:
    """Paint an object and its shadow over an image."""
    row = THINGS[piece.name]
    hue = row.hue + rng.normal(0, 3)
    first = to_bgr((hue, rng.uniform(150, 235), rng.uniform(170, 245)))
    dark = (hue + rng.normal(0, 8), rng.uniform(120, 230))
    second = to_bgr((*dark, rng.uniform(40, 100)))
    rows, cols = np.indices(piece.cover.shape, dtype=np.float32)
    x, y = (cols - piece.centre[0], rows - piece.centre[1])
    cos = math.cos(piece.angle) / piece.radius
    sin = math.sin(piece.angle) / piece.radius
    share = row.pattern(
        x * cos + y * sin, y * cos - x * sin, rng.uniform(0, 6)
    )
    colour = mix(0.8 * share, first, second)
    shade = 1 + 0.28 * (x * light[0] + y * light[1]) / piece.radius
    shade += 0.05 * noise(rng, piece.cover.shape, 2, 2)
    depth = cv2.distanceTransform(
        (piece.cover > 127).astype(np.uint8), cv2.DIST_L2, 3
    )
    shade *= 0.65 + 0.35 * np.clip(depth / 3, 0, 1)
    image = image * (1 - 0.55 * cast_shadow(piece, light))
    cover = piece.cover.astype(np.float32) / 255
    return mix(cover, image, colour * shade)


def cast_shadow(piece: Piece, light: Light) -> Array:
    height, width = piece.cover.shape
    reach = 3 + 0.12 * piece.radius
    x, y = (-reach * side for side in light)
    shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved = cv2.warpAffine(piece.cover, shift, (width, height))
    return cv2.GaussianBlur(moved, (0, 0), 2.5).astype(np.float32) / 255


def expose(rng: Random, image: Array, light: Light) -> Array:
    """Apply the scene's brightness, colour cast, fall-off and sensor noise."""
    height, width = image.shape[1:]
    rows, cols = np.indices((height, width), dtype=np.float32)
    along = (cols / width - 0.5) * light[0] + (rows / height - 0.5) * light[1]
    gain = rng.uniform(0.88, 1.3) * (1 + 0.3 * along)
    cast = rng.normal(1, 0.04, (3, 1, 1)).astype(np.float32)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image * gain * cast + 0.012 * grain
    image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def draw_scene(rng: Random) -> Scene:
    """Draw one scene; every choice in it comes from ``rng``."""
    width, height = SIZES[rng.integers(len(SIZES))]
    angle = rng.uniform(0, 2 * math.pi)
    light = (math.cos(angle), math.sin(angle))
    image, label = draw_ground(rng, (height, width))
    pieces, seen = arrange(rng, (height, width))
    for piece in pieces:
        image = paint_thing(rng, image, piece, light)
    names = [piece.name for piece in pieces]
    masks = [seen == i + 1 for i in range(len(pieces))]
    for name, mask in zip(names, masks):
        label[mask] = CLASSES.index(name) + 1
    return Scene(expose(rng, image, light), label, names, masks)


def to_annotation(mask: Array) -> dict:
    """Describe a mask as COCO does.

    The mask is stored as run lengths: polygons hold neither the hole of a
    ring nor a part that another object cuts off, and lose border pixels.
    """
    flat = np.concatenate([[0], mask.ravel('F'), [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    bounds = np.concatenate([[0], edges, [mask.size]])
    rows, cols = np.nonzero(mask)
    x, y = int(cols.min()), int(rows.min())
    return dict(
        segmentation=dict(
            size=list(mask.shape), counts=np.diff(bounds).tolist()
        ),
        bbox=[x, y, int(cols.max()) + 1 - x, int(rows.max()) + 1 - y],
        area=int(mask.sum()),
        iscrowd=0,
    )


def stems(split: str, count: int) -> List[str]:
    return [f'{split}_{i:05d}' for i in range(1, count + 1)]


def files_of(counts: Dict[str, int]) -> Iterator[str]:
    """Name every file of the data set, relative to its folder."""
    yield STAMP
    yield 'ade20k/classes.txt'
    yield 'ade20k/label_colors.txt'
    for split, (coco, ade) in SPLITS.items():
        yield f'coco/annotations/instances_{coco}.json'
        for stem in stems(split, counts[split]):
            yield f'coco/{coco}/{stem}.jpg'
            yield f'ade20k/images/{ade}/{stem}.jpg'
            yield f'ade20k/annotations/{ade}/{stem}.png'


def write_split(root: Path, split: str, count: int, seed: int) -> None:
    coco, ade = SPLITS[split]
    images: List[dict] = []
    annotations: List[dict] = []
    for number, stem in enumerate(stems(split, count), 1):
        # A generator per scene: more scenes leave the first ones as they are.
        key = (seed, list(SPLITS).index(split), number)
        scene = draw_scene(np.random.default_rng(key))
        write_scene(root, coco, ade, stem, scene)
        height, width = scene.label.shape
        images.append(
            dict(
                id=number, file_name=f'{stem}.jpg', width=width, height=height
            )
        )
        for name, mask in zip(scene.names, scene.masks):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=OBJECT_CLASSES.index(name) + 1,
                    **to_annotation(mask),
                )
            )
    write_instances(
        root / f'coco/annotations/instances_{coco}.json', images, annotations
    )


def write_scene(
    root: Path, coco: str, ade: str, stem: str, scene: Scene
) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode('.jpg', scene.image, quality)[1].tobytes()
    png = cv2.imencode('.png', scene.label)[1].tobytes()
    (root / 'coco' / coco / f'{stem}.jpg').write_bytes(jpeg)
    (root / 'ade20k/images' / ade / f'{stem}.jpg').write_bytes(jpeg)
    (root / 'ade20k/annotations' / ade / f'{stem}.png').write_bytes(png)


def write_instances(
    path: Path, images: List[dict], annotations: List[dict]
) -> None:
    categories = [
        dict(id=i, name=name, supercategory='shape')
        for i, name in enumerate(OBJECT_CLASSES, 1)
    ]
    content = dict(
        info=dict(description='Drawn scenes of shapes', version=str(VERSION)),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=categories,
    )
    path.write_text(
        json.dumps(content, separators=(',', ':')), encoding='utf-8'
    )


def read_stamp(out: Path) -> Optional[dict]:
    """Read what is at ``out``: None where nothing is.

    Raises:
        FileExistsError: If something else is there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        stamp = json.loads((out / STAMP).read_text(encoding='utf-8'))
        ours = set(files_of(stamp))
    except (OSError, ValueError, KeyError, TypeError):
        raise FileExistsError(
            f'{out} exists and is no demo data (it has no readable {STAMP}); '
            'it was left as it is. Choose another --out or move it away'
        ) from None
    found = (p for p in out.rglob('*') if not p.is_dir())
    alien = sorted({p.relative_to(out).as_posix() for p in found} - ours)
    if alien:
        raise FileExistsError(
            f'{out} holds files that are not part of the demo data, such as '
            f'{alien[0]}; it was left as it is. Move them away first'
        )
    return stamp


def make(out: Path, train: int = 160, val: int = 40, seed: int = 0) -> bool:
    """Make the data set at ``out`` unless it is already there.

    It is drawn elsewhere first: ``out`` is never half written.

    Returns:
        Whether it was drawn; False where it was found complete.

    Raises:
        FileExistsError: If ``out`` holds anything that is not ours.
    """
    for name, value, least in [
        ('train', train, 1),
        ('val', val, 1),
        ('seed', seed, 0),
    ]:
        if value < least:
            raise ValueError(f'{name} must be at least {least}, got {value}')
    out = Path(out).resolve()
    stamp = dict(version=VERSION, train=train, val=val, seed=seed)
    complete = all((out / name).is_file() for name in files_of(stamp))
    if read_stamp(out) == stamp and complete:
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that finished folders move there in one step.
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f'.{out.name}-'
    ) as scratch:
        write_all(Path(scratch, 'new'), stamp)
        if out.exists():
            out.rename(Path(scratch, 'old'))
        Path(scratch, 'new').rename(out)
    return True


def write_all(root: Path, stamp: dict) -> None:
    for name in files_of(stamp):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    names = ''.join(f'{name}\n' for name in CLASSES)
    (root / 'ade20k/classes.txt').write_text(names, encoding='utf-8')
    rows = [f'{r} {g} {b} {n}\n' for n, (r, g, b) in zip(CLASSES, PALETTE)]
    table = root / 'ade20k/label_colors.txt'
    table.write_text(''.join(rows), encoding='utf-8')
    for split in SPLITS:
        write_split(root, split, stamp[split], stamp['seed'])
    (root / STAMP).write_text(json.dumps(stamp), encoding='utf-8')


def main(argv: Optional[Sequence[str]] = None) -> Path:
    """Run the command line; returns the folder of the data set."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('data/demo'))
    parser.add_argument('--train', type=int, default=160, help='train scenes')
    parser.add_argument('--val', type=int, default=40, help='val scenes')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    try:
        drawn = make(args.out, args.train, args.val, args.seed)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    state = 'drawn' if drawn else 'found, nothing to do'
    print(f'{args.out}: {args.train} train, {args.val} val scenes {state}')
    return args.out


if __name__ == '__main__':
    main()
