"""Images without labels, from any folder, for pre-training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..files import DamagedImageError, find_images, read_image
from ..registry import DATASETS, TRANSFORMS


def read_skipped(path: Optional[str]) -> List[str]:
    """List the images that ``skipped_file`` names, each once, sorted."""
    if path is None or not Path(path).is_file():
        return []
    lines = Path(path).read_text(encoding='utf-8').splitlines()
    return sorted({line.split('\t')[0] for line in lines})


@DATASETS.register_module()
class ImageFolderDataset(BaseDataset):
    """All images at or below a folder, in class folders or not.

    A file that cannot be read is replaced by the next one that can, written
    to ``skipped_file`` if there is one, and reported once by each worker.

    Args:
        data_root, data_prefix: the folder is ``data_prefix['img_path']``
            below ``data_root``.
        skipped_file: a text file, one path and reason per line.
        max_refetch: how many files in a row may be damaged.
        kwargs: of mmengine's BaseDataset.

    Raises:
        FileNotFoundError: for a folder without images.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Optional[dict] = None,
        skipped_file: Optional[str] = None,
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        self.skipped_file = skipped_file
        self._skipped: Dict[str, str] = {}
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            max_refetch=max_refetch,
            **kwargs,
        )

    def load_data_list(self) -> List[dict]:
        """List the files; nothing is opened."""
        folder = self.data_prefix['img_path'] or self.data_root
        return [dict(img_path=str(path)) for path in find_images(folder)]

    def __getitem__(self, idx: int) -> dict:
        """Return the pipeline's result for image ``idx``, or the next.

        Raises:
            IndexError: after the last image.
            RuntimeError: when too many files in a row cannot be read.
        """
        if not 0 <= idx < len(self):
            raise IndexError(f'image {idx} of {len(self)}')
        for place in range(idx, idx + self.max_refetch + 1):
            path = self.get_data_info(place % len(self))['img_path']
            if path in self._skipped:
                continue
            try:
                return self.prepare_data(place % len(self))
            except DamagedImageError as error:
                self._skip(path, str(error))
        raise RuntimeError(
            f'{self.max_refetch + 1} files in a row cannot be read, the last '
            f'is {path}: {self._skipped[path]}'
        )

    def _skip(self, path: str, reason: str) -> None:
        self._skipped[path] = reason
        if path in read_skipped(self.skipped_file):
            return
        print_log(f'skipped {path}: {reason}', 'current', logging.WARNING)
        if self.skipped_file is not None:
            # One short write at the end of a file is whole, whoever else
            # writes there.
            with open(self.skipped_file, 'a', encoding='utf-8') as file:
                file.write(f'{path}\t{" ".join(reason.split())}\n')


@TRANSFORMS.register_module()
class LoadImage:
    """Read ``img_path`` into ``img``, RGB ``(H, W, 3)`` uint8.

    Pixels and orientation are those that fine-tuning sees: see
    :func:`mmconvnext.files.read_image`.

    Raises:
        DamagedImageError: when it cannot be read.
    """

    def __call__(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        image = read_image(results['img_path'])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class PackImage:
    """Turn ``img`` into what a model takes: ``inputs``, (C, H, W) uint8."""

    def __call__(self, results: dict) -> dict:
        """Return a dict of ``inputs`` alone."""
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image))
