"""Run backbones over a folder of images and measure their features."""

from __future__ import annotations

import re
from pathlib import Path
from typing import (
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
import torch
from mmengine.config import Config
from torch import Tensor, nn

from .. import checkpoint
from ..archs import STRIDES
from ..configs import bare_type
from ..files import find_images, read_image
from ..registry import MODELS
from . import plots
from .measure import (
    LayerStatistics,
    attach,
    choose,
    dead_and_saturated,
    find_blocks,
)

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Settings(NamedTuple):
    """How features are measured.

    Attributes:
        images: folder of images, looked through.
        where: what of a block is measured, a key of ``measure.WHERE``.
        size: shorter side in pixels, then a square from the centre; 0
            leaves images as they are.
        number: of images, evenly spread; None takes all.
        layers: patterns of the blocks to draw; None draws the last of each
            stage.
        class_folders: whether images are in a folder per class.
        ema, prefix: which copy in a checkpoint, as for ``checkpoint.load``.
        seed: of random weights.
        device: to run on.
    """

    images: str
    where: str = 'grn'
    size: int = 224
    number: Optional[int] = None
    layers: Optional[List[str]] = None
    class_folders: bool = False
    ema: bool = False
    prefix: Optional[str] = None
    seed: int = 0
    device: str = 'cpu'


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


def from_checkpoint(path: str, settings: Settings) -> Tuple[str, nn.Module]:
    """Build and load a backbone; say what it is.

    Raises:
        CheckpointError: for what is no whole ConvNeXt.
    """
    state = checkpoint.read(path)
    copy = (settings.ema, settings.prefix)
    about = str(checkpoint.detect(state, *copy))
    return about, checkpoint.build(state, *copy)


def from_config(path: str, settings: Settings) -> Tuple[str, nn.Module]:
    """Build a config's backbone with random weights; say what it is."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'config file not found: {path}')
    cfg = Config.fromfile(path).model.backbone
    cfg.pop('init_cfg', None)
    torch.manual_seed(settings.seed)
    name = f'{bare_type(cfg)} {cfg.arch}'
    about = f'{name}, random weights, seed {settings.seed}'
    return about, MODELS.build(cfg)


def sources(
    checkpoints: Sequence[str], configs: Sequence[str], settings: Settings
) -> List[Source]:
    """Build all models before any image is read.

    Raises:
        ValueError: for no model, or two of one name.
    """
    result = []
    for texts, build in (
        (checkpoints, from_checkpoint),
        (configs, from_config),
    ):
        for label, path in map(named, texts):
            result.append(Source(label, path, *build(path, settings)))
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
    """Return the name of the folder of ``root`` that has a path.

    Raises:
        ValueError: for a path outside of all folders.
    """
    parts = path.relative_to(root).parts
    if len(parts) < 2:
        raise ValueError(f'--class-folders: {path} is in no folder of a class')
    return parts[0]


@torch.inference_mode()
def look(
    source: Source,
    images: Sequence[Path],
    settings: Settings,
    broken: Dict[str, str],
) -> Looked:
    """Run a backbone over the images and measure each of its blocks."""
    blocks = find_blocks(source.model)
    result = Looked({name: LayerStatistics() for name in blocks}, {})
    drawn = chosen_layers(source, settings.layers)
    state = {'class': None}

    def see(name: str, parts: Iterator[Tensor]) -> None:
        for maps in parts:
            result.statistics[name].update(maps, state['class'])
            if name in drawn and name not in result.mosaics:
                result.mosaics[name] = mosaic_of(source.label, maps)

    source.model.to(settings.device).eval()
    attach(blocks, settings.where, see)
    from rich.progress import track

    paths = track(images, f'measuring {source.label}')
    for path, image in read_all(paths, settings.size, broken):
        if settings.class_folders:
            state['class'] = class_of(path, Path(settings.images))
        source.model(normalise(image).to(settings.device))
    source.model.cpu()
    return result


def chosen_layers(source: Source, patterns: Optional[List[str]]) -> List[str]:
    """Choose the blocks to draw; the last of each stage if nothing is said."""
    blocks = find_blocks(source.model)
    if patterns:
        return list(choose(blocks, patterns))
    return list({name.rsplit('.', 1)[0]: name for name in blocks}.values())


def prepare(
    checkpoints: Sequence[str], configs: Sequence[str], settings: Settings
) -> Tuple[List[Path], List[Source]]:
    """Find images and build models; nothing is computed yet."""
    images = spread(find_images(settings.images), settings.number)
    models = sources(checkpoints, configs, settings)
    for source in models:
        chosen_layers(source, settings.layers)
    if settings.class_folders:
        classes_of(images, settings)
    return images, models


def classes_of(images: Sequence[Path], settings: Settings) -> List[str]:
    """Name the classes of images, of which there must be two at least."""
    names = sorted({class_of(path, Path(settings.images)) for path in images})
    if len(names) < 2:
        raise ValueError(f'--class-folders: there is only {names}')
    return names
