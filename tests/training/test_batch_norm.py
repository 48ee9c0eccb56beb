"""One image is refused where batch norm sees one value of it."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from mmconvnext.training.batch_norm import check_batch, lone_norms

UPERNET = 'upernet_convnextv2_atto_camvid.py'


def build(name: str) -> nn.Module:
    return tiny.build(tiny.shrink(tiny.load(name))).train()


def test_what_is_listed_cannot_train_with_one_image() -> None:
    model = build(UPERNET)
    (name,) = lone_norms(model)
    assert name.startswith('decode_head.psp_modules.0')
    part = model.get_submodule(name)
    channels = next(part.parameters()).shape[1]
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        part(torch.rand(1, channels, 4, 4))
    part(torch.rand(2, channels, 4, 4))


@pytest.mark.parametrize(
    ('norm', 'batch', 'processes', 'refused'),
    [
        ('BN', 1, 1, True),
        ('BN', 2, 1, False),
        ('BN', 1, 4, True),
        ('SyncBN', 1, 4, False),
        ('SyncBN', 1, 1, True),
        ('GN', 1, 1, False),
    ],
)
def test_batches(norm: str, batch: int, processes: int, refused: bool) -> None:
    norms = dict(BN=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm)
    norm_layer = norms[norm](4) if norm in norms else nn.GroupNorm(2, 4)
    model = nn.Module()
    model.pool = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(4, 4, 1), norm_layer)
    )
    if not refused:
        check_batch(model, batch, processes)
        return
    with pytest.raises(ValueError, match='batch_size=1: pool .*two images'):
        check_batch(model, batch, processes)


def test_detectors_train_with_one_image() -> None:
    check_batch(build('mask_rcnn_convnextv2_atto_nuclei.py'), 1, 1)
