"""Measure and draw what the features of ConvNeXts do on a folder of images.

python tools/analyze_features.py IMAGES --out DIR NAME=CHECKPOINT...

Cosine distance, dead and saturated channels of every block, after ConvNeXt V2
(arXiv 2301.00808, section 4). A checkpoint has any format that the backbones
load; version and size follow from it. --config NAME=CONFIG adds a config's
random weights.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from mmconvnext import checkpoint, cli
from mmconvnext.analysis import plots
from mmconvnext.analysis.measure import (
    DEFINITIONS,
    WHERE,
    LayerStatistics,
    attach,
    choose,
    dead_and_saturated,
    find_blocks,
)
from mmconvnext.archs import STRIDES
from mmconvnext.checkpoint import weights_io
from mmconvnext.checkpoint.detect import Found, translate
from mmconvnext.files import find_images, read_image, write_text
from mmconvnext.registry import MODELS

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TYPES = {1: 'mmconvnext.ConvNeXt', 2: 'mmconvnext.ConvNeXtV2'}
COLUMNS = (
    'label',
    'layer',
    'depth',
    'channels',
    'distance',
    'distance_std',
    'dead',
    'saturated',
    'selectivity',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog=f'where: {"; ".join(f"{k}: {v}" for k, v in WHERE.items())}',
    )
    parser.add_argument('images', help='folder of images, looked through')
    parser.add_argument(
        'checkpoints', nargs='*', metavar='[NAME=]CHECKPOINT', default=[]
    )
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument(
        '--config',
        action='append',
        default=[],
        metavar='[NAME=]CONFIG',
        help="also measure a config's backbone with random weights; may be "
        'given several times',
    )
    parser.add_argument('--where', choices=WHERE, default='grn')
    parser.add_argument(
        '--size',
        type=int,
        default=224,
        help='shorter side, then a square from the centre; 0: images as they '
        'are (default: %(default)s)',
    )
    parser.add_argument(
        '--number', type=int, help='measure this many, evenly spread'
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='PATTERN',
        help='blocks for mosaics and selectivity, as in "stages.2.*" '
        '(default: the last of each stage)',
    )
    parser.add_argument(
        '--class-folders',
        action='store_true',
        help='IMAGES/CLASS/...: also measure class selectivity',
    )
    parser.add_argument('--ema', action='store_true', help='averaged weights')
    parser.add_argument('--prefix', help='which copy in the checkpoint')
    parser.add_argument('--seed', type=int, default=0, help='of --config')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    # Checkpoints may follow options.
    return parser.parse_intermixed_args()


class Source(NamedTuple):
    """A backbone to look at, and what to call it."""

    label: str
    path: str
    about: str
    model: nn.Module


class Looked(NamedTuple):
    """What a pass over the images found: by layer, and of one image."""

    statistics: Dict[str, LayerStatistics]
    mosaics: Dict[str, plots.Mosaic]


def named(text: str) -> Tuple[str, str]:
    """Split ``NAME=PATH``; a bare path is called by its stem."""
    match = re.fullmatch(r'([^=/:]+)=(.+)', text)
    return match.groups() if match else (Path(text).stem, text)


def backbone_of(found: Found, in_channels: int) -> nn.Module:
    """Build the backbone that a checkpoint is of."""
    stages, lacking = len(found.depths), len(STRIDES) - len(found.depths)
    arch = found.arch
    if arch == 'custom':
        # Stages that the file lacks are not built, but want a size.
        sizes = (found.depths, found.dims)
        arch = {
            key: [*row, *[1] * lacking]
            for key, row in zip(('depths', 'dims'), sizes)
        }
    return MODELS.build(
        dict(
            type=TYPES[found.version],
            arch=arch,
            in_channels=in_channels,
            out_indices=tuple(range(stages)),
        )
    )


def from_checkpoint(path: str, ema: bool, prefix: Optional[str]) -> tuple:
    """Build and load a backbone; say what it is.

    Raises:
        CheckpointError: for what is no whole ConvNeXt.
    """
    state = weights_io.read(path)
    whole = translate(state, ema, prefix)
    stem = whole.tensors['downsample_layers.0.0.weight']
    model = backbone_of(whole.found, stem.shape[1])
    checkpoint.load(model, state, ema, prefix)
    return str(whole.found), model


def from_config(path: str, seed: int) -> tuple:
    cfg = cli.read_config(path).model.backbone
    cfg.pop('init_cfg', None)
    torch.manual_seed(seed)
    return f'{cfg.type} {cfg.arch}, random weights, seed {seed}', MODELS.build(
        cfg
    )


def sources(args: argparse.Namespace) -> List[Source]:
    """Build all models before any image is read.

    Raises:
        ValueError: for no model, or two of one name.
    """
    result = []
    for text in args.checkpoints:
        label, path = named(text)
        built = from_checkpoint(path, args.ema, args.prefix)
        result.append(Source(label, path, *built))
    for text in args.config:
        label, path = named(text)
        result.append(Source(label, path, *from_config(path, args.seed)))
    labels = [source.label for source in result]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(
            f'one checkpoint or config at least, each of another name, got '
            f'{labels}; name them as in NAME=PATH'
        )
    return result


def spread(paths: List[Path], number: Optional[int]) -> List[Path]:
    """Take ``number`` of the paths, evenly spread; all where it is None."""
    if number is None or number >= len(paths):
        return paths
    places = np.linspace(0, len(paths) - 1, number).round().astype(int)
    return [paths[place] for place in places]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bring the shorter side to ``size`` and cut the centre; 0 leaves it."""
    if size == 0:
        return image
    height, width = image.shape[:2]
    scale = size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def normalise(image: np.ndarray) -> Tensor:
    """Turn ``(H, W, 3)`` RGB into ``(1, 3, H, W)`` as the configs do."""
    pixels = (image.astype(np.float32) - MEAN) / STD
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


def read_all(
    paths: Sequence[Path], size: int, broken: Dict[str, str]
) -> Iterator[Tuple[Path, np.ndarray]]:
    """Yield the images; put what cannot be used into ``broken``, why."""
    for path in paths:
        try:
            image = resize(read_image(path), size)
            if min(image.shape[:2]) < STRIDES[-1]:
                raise ValueError(f'smaller than {STRIDES[-1]} pixels')
        except ValueError as error:
            broken[str(path)] = str(error)
            continue
        yield path, image


def mosaic_of(label: str, maps: Tensor) -> plots.Mosaic:
    """Take 64 channels, evenly spread, of ``(1, H, W, C)``."""
    channels = maps.size(-1)
    number = min(plots.SIDE**2, channels)
    chosen = torch.linspace(0, channels - 1, number).round().long()
    kept = maps[..., chosen.to(maps.device)].float()
    dead, flat = (
        flags[0, chosen].cpu().numpy() for flags in dead_and_saturated(maps)
    )
    return plots.Mosaic(label, kept[0].cpu().numpy(), dead, flat, channels)


def class_of(path: Path, root: Path) -> str:
    """Name the folder below ``root`` that a path lies in.

    Raises:
        ValueError: where it lies in none.
    """
    parts = path.relative_to(root).parts
    if len(parts) < 2:
        raise ValueError(f'--class-folders: {path} is in no folder of a class')
    return parts[0]


@torch.inference_mode()
def look(
    source: Source,
    images: Sequence[Path],
    args: argparse.Namespace,
    broken: Dict[str, str],
) -> Looked:
    """Run a backbone over the images and measure each of its blocks."""
    blocks = find_blocks(source.model)
    result = Looked({name: LayerStatistics() for name in blocks}, {})
    drawn = chosen_layers(source, args.layers)
    state = {'class': None}

    def see(name: str, parts: Iterator[Tensor]) -> None:
        for maps in parts:
            result.statistics[name].update(maps, state['class'])
            if name in drawn and name not in result.mosaics:
                result.mosaics[name] = mosaic_of(source.label, maps)

    source.model.to(args.device).eval()
    attach(blocks, args.where, see)
    paths = track(images, f'measuring {source.label}')
    for path, image in read_all(paths, args.size, broken):
        if args.class_folders:
            state['class'] = class_of(path, Path(args.images))
        source.model(normalise(image).to(args.device))
    source.model.cpu()
    return result


def chosen_layers(source: Source, patterns: Optional[List[str]]) -> List[str]:
    """Choose the blocks to draw; the last of each stage if nothing is said."""
    blocks = find_blocks(source.model)
    if patterns:
        return list(choose(blocks, patterns))
    return list({name.rsplit('.', 1)[0]: name for name in blocks}.values())


def rows_of(source: Source, looked: Looked, selective: bool) -> List[Dict]:
    """Lay the numbers of a model out, a row per block."""
    last = max(len(looked.statistics) - 1, 1)
    rows = []
    for index, (layer, found) in enumerate(looked.statistics.items()):
        row = dict(label=source.label, layer=layer, depth=index / last)
        row.update(channels=found.channels, **found.summary())
        row['selectivity'] = math.nan
        if selective:
            row['selectivity'] = found.selectivity().mean().item()
        rows.append(row)
    return rows


def write_numbers(out: Path, rows: List[Dict], about: Dict) -> None:
    """Write ``features.csv`` and ``features.json``; NaN is empty and null."""
    rows = [{key: _plain(row[key]) for key in COLUMNS} for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(stream.getvalue(), out / 'features.csv')
    text = json.dumps({**about, 'layers': rows}, indent=1, allow_nan=False)
    write_text(text + '\n', out / 'features.json')


def _plain(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def draw(
    args: argparse.Namespace,
    found: Dict[Source, Looked],
    rows: List[Dict],
    images: int,
    classes: int,
    example: np.ndarray,
) -> None:
    """Draw all plots."""
    out, where = Path(args.out), args.where
    curves = [
        plots.Curve(s.label, [r for r in rows if r['label'] == s.label])
        for s in found
    ]
    plots.save(
        plots.plot_distance(curves, where, images), out / 'distance.png'
    )
    plots.save(
        plots.plot_channels(curves, where, images), out / 'channels.png'
    )
    layers = dict.fromkeys(n for f in found.values() for n in f.mosaics)
    for layer in layers:
        mosaics = [
            f.mosaics[layer] for f in found.values() if layer in f.mosaics
        ]
        figure = plots.plot_mosaics(layer, where, example, mosaics)
        plots.save(figure, out / f'mosaic_{layer}.png')
    if args.class_folders:
        index = {
            layer: {
                s.label: f.statistics[layer].selectivity().cpu().numpy()
                for s, f in found.items()
                if layer in f.mosaics
            }
            for layer in layers
        }
        figure = plots.plot_selectivity(index, where, classes)
        plots.save(figure, out / 'selectivity.png')


def table(rows: List[Dict]) -> str:
    """Lay the numbers out for the terminal."""
    lines = [
        f'{"label":<20} {"layer":<12} {"depth":>5} {"channels":>8} '
        f'{"distance":>8} {"dead":>6} {"saturated":>9}'
    ]
    lines += [
        f'{row["label"]:<20} {row["layer"]:<12} {row["depth"]:>5.2f} '
        f'{row["channels"]:>8} {row["distance"]:>8.3f} {row["dead"]:>6.1%} '
        f'{row["saturated"]:>9.1%}'
        for row in rows
    ]
    return '\n'.join(lines)


def prepare(args: argparse.Namespace) -> Tuple[List[Path], List[Source]]:
    """Find images and build models; nothing is computed yet."""
    images = spread(find_images(args.images), args.number)
    models = sources(args)
    for source in models:
        chosen_layers(source, args.layers)
    if args.class_folders:
        classes_of(images, args)
    return images, models


def classes_of(images: Sequence[Path], args: argparse.Namespace) -> List[str]:
    names = sorted({class_of(path, Path(args.images)) for path in images})
    if len(names) < 2:
        raise ValueError(f'--class-folders: there is only {names}')
    return names


def describe(
    args: argparse.Namespace,
    models: Sequence[Source],
    images: int,
    broken: Dict[str, str],
) -> Dict:
    """Say what the numbers are, for ``features.json``."""
    return dict(
        where=args.where,
        where_text=WHERE[args.where],
        definitions=DEFINITIONS,
        images=images,
        size=args.size,
        unreadable=broken,
        models={s.label: dict(path=s.path, about=s.about) for s in models},
    )


def main() -> None:
    args = parse_args()
    broken: Dict[str, str] = {}
    with cli.clear_errors():
        images, models = prepare(args)
    found = {s: look(s, images, args, broken) for s in models}
    used = [path for path in images if str(path) not in broken]
    with cli.clear_errors():
        if not used:
            raise ValueError(f'no usable image: {broken}')
        classes = classes_of(used, args) if args.class_folders else []
    rows = []
    for source, looked in found.items():
        rows += rows_of(source, looked, args.class_folders)
    out = Path(args.out)
    write_numbers(out, rows, describe(args, models, len(used), broken))
    ((_, example),) = read_all(used[:1], args.size, {})
    draw(args, found, rows, len(used), len(classes), example)
    print(table(rows))
    print(f'measured: {WHERE[args.where]}, {len(used)} images')
    for name, text in DEFINITIONS.items():
        print(f'{name}: {text}')
    for path, reason in broken.items():
        print(f'error: {path}: {reason}', file=sys.stderr)
    print(f'results: {out}')
    sys.exit(bool(broken))


if __name__ == '__main__':
    main()
