"""Training samples of a classifier, as tools/browse_dataset.py draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from classified import CLASSES, class_config

from mmconvnext.files import write_image
from mmconvnext.inference.samples import drawn_samples

RED = (250, 10, 10)


def test_samples_have_their_colours_and_class(tmp_path: Path) -> None:
    for name in CLASSES:
        image = np.full((48, 48, 3), RED, np.uint8)
        write_image(image, tmp_path / 'train' / name / '0.png')
    cfg = class_config(tmp_path)
    leaf = cfg.train_dataloader.dataset
    leaf.pipeline = cfg.test_dataloader.dataset.pipeline
    rows = list(drawn_samples(cfg, 3, seed=0))
    assert {line for *_, line in rows} == {
        f'32x32, class {i}' for i in range(3)
    }
    for _, picture, _ in rows:
        assert (picture[-200:] == RED).all()
        assert (picture[:30] < 100).any()  # the name of the class
