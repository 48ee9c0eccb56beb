"""Pictures of FCMAE: what it hid, what it filled in, how its loss fell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from .data import LoadImage, PackImage, resize

GAP = 8  # white pixels between two pictures
CAPTION = 36  # pixels below a row
GREY = 128  # what hidden patches look like
SHORT_SIDE = 224  # pixels, what images are resized to


def read_image(
    path: str, patch_size: int, short_side: int = SHORT_SIDE
) -> Tensor:
    """Read an image, resize it, and cut it to whole patches.

    Args:
        path: of the file.
        patch_size: side of a patch in pixels.
        short_side: of the resized image, at least ``patch_size``.

    Returns:
        RGB, ``(3, H, W)`` uint8, the middle of the image.

    Raises:
        DamagedImageError: when it cannot be read.
    """
    results = LoadImage()(dict(img_path=str(path)))
    image = results['img']
    factor = max(short_side, patch_size) / min(image.shape[:2])
    height, width = (
        max(round(side * factor), patch_size) for side in image.shape[:2]
    )
    image = resize(image, height, width)
    height, width = (n // patch_size * patch_size for n in (height, width))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    results['img'] = image[top : top + height, left : left + width]
    return PackImage()(results)['inputs']


@torch.no_grad()
def panels(model: BaseModel, image: Tensor, seed: int = 0) -> np.ndarray:
    """Draw input, what is visible of it, the reconstruction, and both pasted.

    Args:
        model: an FCMAE; its mode is kept, the random state too.
        image: RGB ``(3, H, W)`` uint8, H and W multiples of the patch size.
        seed: of the mask.

    Returns:
        RGB ``(H + CAPTION, 4 W + 3 GAP, 3)`` uint8.
    """
    training = model.training
    model.eval()
    pre = model.data_preprocessor
    inputs = pre(dict(inputs=[image]))['inputs']
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mask = model.random_mask(inputs)
    filled = model(inputs, mode='predict', mask=mask)
    model.train(training)
    pictures = [_to_rgb(x[0], pre) for x in (inputs, filled)]
    times = model.patch_size
    hidden = mask[0].cpu().numpy().repeat(times, 0).repeat(times, 1)[..., None]
    shown = {
        'input': pictures[0],
        f'visible, {mask.float().mean():.0%} hidden': np.where(
            hidden, np.uint8(GREY), pictures[0]
        ),
        _caption(model): pictures[1],
        'filled in': np.where(hidden, pictures[1], pictures[0]),
    }
    return _row(shown)


def _caption(model: BaseModel) -> str:
    # Without it the noise in visible patches looks like a defect.
    if model.norm_pix_loss:
        return "predicted, with the input's mean and contrast"
    return 'predicted'


def _to_rgb(image: Tensor, preprocessor: torch.nn.Module) -> np.ndarray:
    if preprocessor._enable_normalize:
        image = image * preprocessor.std + preprocessor.mean
    image = image.float().round().clamp(0, 255).byte()
    return image.permute(1, 2, 0).cpu().numpy()


def _row(pictures: Dict[str, np.ndarray]) -> np.ndarray:
    height = next(iter(pictures.values())).shape[0]
    gap = np.full((height + CAPTION, GAP, 3), 255, np.uint8)
    parts: List[np.ndarray] = []
    for text, picture in pictures.items():
        strip = np.full((CAPTION, picture.shape[1], 3), 255, np.uint8)
        for place, line in enumerate(_wrap(text, picture.shape[1])):
            at = (2, 13 + 15 * place)
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(strip, line, at, font, 0.4, (0,) * 3, 1, cv2.LINE_AA)
        parts += [gap, np.vstack([picture, strip])]
    return np.hstack(parts[1:])


def _wrap(text: str, width: int) -> List[str]:
    """Break a caption into two lines where one does not fit."""
    if len(text) * 7 < width:
        return [text]
    words = text.split()
    return [
        ' '.join(words[: len(words) // 2]),
        ' '.join(words[len(words) // 2 :]),
    ]


def read_losses(work_dir: str) -> Tuple[List[int], List[float]]:
    """Read steps and losses that the runs in a work dir have logged.

    A run that was resumed writes into a folder of its own; where two have
    the same step, the later one counts.
    """
    losses: Dict[int, float] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                losses[row.get('iter', row['step'])] = row['loss']
    steps = sorted(losses)
    return steps, [losses[step] for step in steps]


def draw_losses(work_dir: str, path: str) -> None:
    """Draw the loss of a run over its iterations into a PNG file.

    Raises:
        ValueError: when the work dir has no logged loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, losses = read_losses(work_dir)
    if not steps:
        raise ValueError(f'no logged loss below {work_dir}')
    figure = Figure(figsize=(7, 4), layout='constrained')
    axes = figure.subplots()
    axes.plot(steps, losses, color='#0072B2')
    axes.set(
        xlabel='iteration',
        ylabel='mean squared error on hidden patches',
        title=f'pre-training loss, last {losses[-1]:.3f}',
    )
    axes.grid(alpha=0.3)
    partial = f'{path}.partial'
    FigureCanvasAgg(figure).print_png(partial)
    os.replace(partial, path)
