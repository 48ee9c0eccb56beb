"""Tiny classifiers, and class folders that tests draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Sequence

import torch
from checkpoints import DEPTHS, DIMS, randomise
from drawn import picture
from mmengine.config import Config
from tiny import load

from mmconvnext import ImageClassifier
from mmconvnext.files import write_image

CLASSES = ('ant', 'bee', 'cow')
NAME = 'finetune_convnextv2_atto_signs.py'
SIDE = 32


def draw_folders(
    root: Path, classes: Sequence[str] = CLASSES, count: int = 2
) -> Path:
    """Write class folders, ``val/CLASS/0.png``, each class of one grey."""
    for number, name in enumerate(classes):
        for i in range(count):
            value = 40 * number + 10 * i
            write_image(
                picture(40, 60, value % 256), root / 'val' / name / f'{i}.png'
            )
    return root


def class_config(root: Path, classes: int = 3, **dataset: Any) -> Config:
    """Make the config of signs tiny, for :func:`draw_folders`."""
    cfg = load(NAME)
    cfg.model.num_classes = classes
    cfg.model.backbone.arch = dict(depths=list(DEPTHS), dims=list(DIMS))
    cfg.data_root = cfg.train_dataloader.dataset.data_root = str(root)
    cfg.test_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    given = cfg.test_dataloader.dataset
    given.update(data_root=str(root), **dataset)
    given.pipeline[1].update(scale=SIDE, crop_ratio=0.875)
    return cfg


def tiny_classifier(classes: int = 3, version: int = 2) -> ImageClassifier:
    """Build the classifier of :func:`class_config` with random weights."""
    kind = {1: 'ConvNeXt', 2: 'ConvNeXtV2'}[version]
    arch = dict(depths=DEPTHS, dims=DIMS)
    backbone = dict(type=f'mmconvnext.{kind}', arch=arch)
    return randomise(ImageClassifier(backbone, num_classes=classes))


def save_native(model: ImageClassifier, path: Path, **meta: Any) -> Path:
    """Write a checkpoint as mmengine's runner does."""
    content: Dict = dict(state_dict=model.state_dict(), meta=meta)
    torch.save(content, path)
    return path
