"""Pictures of data and predictions: an image beside itself with labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS

GAP = 8  # white pixels between the two


class Painter:
    """Draws with the config's visualizer and its data set's classes.

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

    def draw(self, image: np.ndarray, sample: Any, **options) -> np.ndarray:
        """Put an image beside itself with what ``sample`` holds.

        Args:
            image: RGB, ``(H, W, 3)``, uint8.
            sample: the host's data sample.
            options: of the host's ``add_datasample``.

        Returns:
            RGB, ``(H, 2 W + GAP, 3)``.
        """
        self.visualizer.add_datasample('picture', image, sample, **options)
        gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
        return np.hstack([image, gap, self.visualizer.get_image()])


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an RGB picture whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}')
    if not cv2.imwrite(str(partial), image[..., ::-1]):
        raise OSError(f'cannot write {path}')
    os.replace(partial, path)
