"""Predicting with pipelines that read labels in ways of their own."""

from pathlib import Path

import pytest
import torch
from drawn import picture
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from tiny import build, load, shrink

from mmconvnext.files import write_image
from mmconvnext.inference import Predictor


@TRANSFORMS.register_module()
class LoadOwnAnnotations(BaseTransform):
    """As a project's own step: it fails where there is no label."""

    def transform(self, results: dict) -> dict:
        raise KeyError(results['seg_map_path'])


@pytest.mark.parametrize(
    'step',
    [
        'LoadAnnotations',
        'mmseg.LoadAnnotations',
        'LoadDepthAnnotation',
        'mmengine.LoadOwnAnnotations',
        LoadOwnAnnotations,
    ],
)
def test_images_without_labels(tmp_path: Path, step: object) -> None:
    cfg = shrink(load('upernet_convnextv2_atto_demo.py'))
    torch.save(build(cfg).state_dict(), tmp_path / 'model.pth')
    write_image(picture(64, 96), tmp_path / 'image.png')
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type=step),
        dict(type='PackSegInputs'),
    ]
    predictor = Predictor(cfg, str(tmp_path / 'model.pth'))
    sample = predictor.predict(tmp_path / 'image.png')
    assert sample.pred_sem_seg.shape == (64, 96)
