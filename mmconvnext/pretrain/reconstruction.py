"""Pictures of FCMAE: what it hid, what it filled in, how its loss fell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Tuple, Union

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from ..files import resize, whole_file
from ..inference.pictures import Drawn
from ..inference.predictor import ConfigLike, load_model
from .dataset import LoadImage, PackImage

GREY = 128  # what hidden patches look like
SHORT_SIDE = 224  # pixels, what images are resized to


class Reconstructor:
    """A pre-trained FCMAE that reconstructs images under random masks.

    Args:
        cfg, checkpoint, device: as for
            :class:`mmconvnext.inference.Predictor`.
    """

    def __init__(
        self, cfg: ConfigLike, checkpoint: str, device: str = 'cpu'
    ) -> None:
        self.model = load_model(cfg, checkpoint, device)

    def draw(self, path: Path) -> Drawn:
        """Draw input, what is visible of it, and what is filled in.

        Raises:
            DamagedImageError: when the file is not a readable image.
        """
        return panels(self.model, read_image(path, self.model.patch_size))


def read_image(
    path: Union[str, Path], patch_size: int, short_side: int = SHORT_SIDE
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
def panels(model: BaseModel, image: Tensor, seed: int = 0) -> Drawn:
    """Draw input, what is visible of it, the prediction, and it filled in.

    Args:
        model: an FCMAE; its mode is kept, the random state too.
        image: RGB ``(3, H, W)`` uint8, H and W multiples of the patch size.
        seed: of the mask.
    """
    training, preprocessor = model.training, model.data_preprocessor
    model.eval()
    inputs = preprocessor(dict(inputs=[image]))['inputs']
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mask = model.random_mask(inputs)
    filled = model(inputs, mode='predict', mask=mask)
    model.train(training)
    whole, predicted = (_to_rgb(x[0], preprocessor) for x in (inputs, filled))
    times = model.patch_size
    hidden = mask[0].cpu().numpy().repeat(times, 0).repeat(times, 1)[..., None]
    seen = np.where(hidden, np.uint8(GREY), whole)
    shown = {
        'input': whole,
        f'{mask.float().mean():.0%} hidden': seen,
        'prediction': predicted,
        'filled in': np.where(hidden, predicted, whole),
    }
    return Drawn(shown, legend={_legend(model): (GREY,) * 3})


def _legend(model: BaseModel) -> str:
    # Without it the noise in visible patches looks like a defect.
    text = 'hidden (only these patches are trained to be predicted'
    if model.norm_pix_loss:
        text += ", up to each patch's mean and contrast, here the input's"
    return text + ')'


def _to_rgb(image: Tensor, preprocessor: torch.nn.Module) -> np.ndarray:
    if hasattr(preprocessor, 'mean'):
        image = image * preprocessor.std + preprocessor.mean
    image = image.float().round().clamp(0, 255).byte()
    return image.permute(1, 2, 0).cpu().numpy()


def read_losses(work_dir: str) -> Tuple[List[int], List[float]]:
    """Read steps and losses that the runs in a work dir have logged.

    A run that was resumed writes into a folder of its own; where two have
    the same step, the later one counts.
    """
    losses: Dict[int, float] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
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
    with whole_file(path) as part:
        FigureCanvasAgg(figure).print_png(part)
