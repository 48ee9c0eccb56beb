"""Pictures of data and predictions, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS

from . import bars
from .instances import Objects, draw_objects, legible, objects_of
from .scores import Score
from .writing import Line, width_of, write

GAP = 8  # white pixels between two panels
CAPTION = 24  # pixels of the strip above them
FONT = 15  # pixels


class Drawn(NamedTuple):
    """What was drawn of an image.

    ``panels`` are RGB pictures of one height by their caption, left to
    right; ``score`` compares with a label where there is one; ``legend``
    has the RGB colours of what the panels do not name; ``sample`` is what
    was predicted, as the host gives it.
    """

    panels: Mapping[str, np.ndarray]
    score: Optional[Score] = None
    legend: Mapping[str, Sequence[int]] = {}
    sample: Any = None


class PictureNames:
    """Names the pictures of images: ``a/x.png`` for ``a/x.jpg``.

    A second image of that name, ``a/x.tif``, becomes ``a/x.tif.png``.
    """

    def __init__(self) -> None:
        self._taken: Dict[Path, Path] = {}

    def of(self, image: Path) -> Path:
        """Return the name of an image's picture, the same each time."""
        name = image.with_suffix('.png')
        if self._taken.setdefault(name, image) != image:
            return image.with_name(f'{image.name}.png')
        return name


class Painter:
    """Draws with the classes and colours of the config's data set.

    Objects are drawn by :mod:`.instances`, classes of images by
    :mod:`.bars`, all else by the config's visualizer.

    Args:
        cfg: a config of either host, its default scope set.
        loader: the loader whose data set gives names and colours; none of
            its files is read.
    """

    def __init__(self, cfg: Config, loader: str) -> None:
        self.visualizer = VISUALIZERS.build(
            {**cfg.visualizer, 'vis_backends': None, 'name': loader}
        )
        dataset = {**cfg[loader].dataset, 'lazy_init': True}
        self.visualizer.dataset_meta = DATASETS.build(dataset).metainfo

    @property
    def classes(self) -> Sequence[str]:
        """Names by label."""
        return self.visualizer.dataset_meta['classes']

    def draw(self, image: np.ndarray, sample: Any, **options) -> np.ndarray:
        """Put an image beside itself with what ``sample`` holds.

        Args:
            image: RGB, ``(H, W, 3)``, uint8.
            sample: the host's data sample.
            options: of the host's ``add_datasample``.

        Returns:
            RGB, ``(H, 2 W + GAP, 3)``; of a classifier in a size of its own.
        """
        if 'pred_scores' in sample:
            return side_by_side(list(self.ranked(image, sample).values()))
        if 'gt_label' in sample:
            return bars.labelled(image, self.classes[int(sample.gt_label)])
        return side_by_side([image, self.panel(image, sample, **options)])

    def ranked(self, image: np.ndarray, sample: Any) -> Dict[str, np.ndarray]:
        """Draw an image and its most probable classes: two panels."""
        return bars.panels(image, sample, self.classes)

    def panel(
        self,
        image: np.ndarray,
        sample: Any,
        draw_gt: bool = True,
        draw_pred: bool = True,
        pred_score_thr: float = 0.3,
        **options,
    ) -> np.ndarray:
        """Draw what ``sample`` holds on an image: :meth:`draw`, one panel."""
        objects = self.objects(sample, draw_pred, pred_score_thr)
        if objects is not None:
            meta = self.visualizer.dataset_meta
            return draw_objects(
                image, objects, meta['classes'], meta['palette']
            )
        options.update(draw_gt=draw_gt, draw_pred=draw_pred)
        if 'pred_instances' in sample:
            options['pred_score_thr'] = pred_score_thr
        self.visualizer.add_datasample('picture', image, sample, **options)
        return self.visualizer.get_image()

    def objects(
        self, sample: Any, predicted: bool, score_thr: float
    ) -> Optional[Objects]:
        """Take the objects of a sample that are to be seen.

        None where it is not objects in upright boxes that it holds, or
        where more than they belongs to the picture.
        """
        name = 'pred_instances' if predicted else 'gt_instances'
        panoptic = {'pred_panoptic_seg', 'gt_panoptic_seg'} & {*sample.keys()}
        meta = self.visualizer.dataset_meta or {}
        if name not in sample or panoptic or not meta.get('palette'):
            return None
        objects = objects_of(sample.get(name))
        return objects and legible(objects, score_thr)


def plain_truth(sample: Any) -> Any:
    """Turn boxes and masks into what hosts' visualizers take, in place."""
    if 'gt_instances' in sample:
        truth = sample.gt_instances
        truth.bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        if 'masks' in truth:
            truth.masks = truth.masks.to_ndarray().astype(bool)
    return sample


def side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Join RGB pictures of one height, left to right."""
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for panel in panels for part in (gap, panel)]
    return np.hstack(row[1:])


def captioned(drawn: Drawn) -> np.ndarray:
    """Join panels, each below its caption, the legend below them."""
    row = side_by_side([_below(*item) for item in drawn.panels.items()])
    return np.vstack([row, _legend(drawn.legend, row.shape[1])])


def _below(caption: str, picture: np.ndarray) -> np.ndarray:
    strip = np.full((CAPTION, picture.shape[1], 3), 255, np.uint8)
    line = Line(caption, 2, CAPTION // 2, FONT, strip.shape[1] - 2)
    return np.vstack([write(strip, [line]), picture])


def _legend(colours: Mapping[str, Sequence[int]], width: int) -> np.ndarray:
    """Draw names beside their colours in as many rows as they take."""
    places, x, y = {}, 2, 0
    for name in colours:
        length = CAPTION + 12 + width_of(name, FONT)
        if places and x + length > width:
            x, y = 2, y + CAPTION
        places[name] = x, y
        x += length
    height = y + CAPTION if places else 0
    strip = np.full((height, width, 3), 255, np.uint8)
    lines = []
    for name, (x, y) in places.items():
        strip[y + 5 : y + CAPTION - 3, x : x + CAPTION - 8] = colours[name]
        left, middle = x + CAPTION - 4, y + CAPTION // 2
        lines.append(Line(name, left, middle, FONT, width - left))
    return write(strip, lines)
