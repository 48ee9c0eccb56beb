"""Pictures of FCMAE show what their captions say."""

import json
from pathlib import Path

import cv2
import masked
import numpy as np
import pytest
import torch

from mmconvnext import FCMAE
from mmconvnext.pretrain.reconstruction import (
    GREY,
    draw_losses,
    panels,
    read_image,
    read_losses,
)


@pytest.fixture
def model() -> FCMAE:
    return FCMAE(
        dict(type='mmconvnext.ConvNeXtV2', arch=masked.TINY),
        decoder_dim=16,
        data_preprocessor=dict(
            type='ImgDataPreprocessor',
            mean=[100.0, 110.0, 120.0],
            std=[50.0, 60.0, 70.0],
        ),
    )


def test_panels_hide_and_paste(model: FCMAE):
    image = torch.randint(0, 255, (3, 96, 160), dtype=torch.uint8)
    state = torch.get_rng_state()
    drawn = panels(model.train(), image, seed=3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    captions = ['input', '60% hidden', 'prediction', 'filled in']
    assert list(drawn.panels) == captions
    whole, seen, filled, pasted = drawn.panels.values()
    assert np.array_equal(whole, image.permute(1, 2, 0).numpy())
    hidden = (seen == GREY).all(-1)
    # 15 patches, int(6.0) = 6 visible.
    assert hidden.sum() == 9 * 32 * 32
    assert np.array_equal(seen[~hidden], whole[~hidden])
    assert np.array_equal(pasted[~hidden], whole[~hidden])
    assert np.array_equal(pasted[hidden], filled[hidden])
    assert not np.array_equal(filled[hidden], whole[hidden])
    assert list(drawn.legend.values()) == [(GREY,) * 3]
    assert "here the input's" in list(drawn.legend)[0]


def test_panels_of_a_seed_are_the_same(model: FCMAE):
    image = torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8)
    same = [panels(model, image, seed) for seed in (0, 0, 1)]
    first, again, other = (drawn.panels['filled in'] for drawn in same)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_predictions_are_unnormalised(model: FCMAE):
    """Hidden patches have the image's mean: grey stays grey."""
    # A patch is normalised over its three channels together.
    model.data_preprocessor.mean.fill_(110.0)
    model.data_preprocessor.std.fill_(55.0)
    image = torch.full((3, 96, 96), 77, dtype=torch.uint8)
    filled = panels(model, image).panels['prediction']
    assert np.abs(filled.astype(int) - 77).max() <= 1


@pytest.mark.parametrize(
    ('size', 'shape'),
    [
        ((360, 480), (224, 288)),
        ((30, 90), (224, 672)),
        ((500, 20), (5600, 224)),
    ],
)
def test_read_image_gives_whole_patches(size, shape, tmp_path: Path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    assert read_image(str(path), 32).shape == (3, *shape)


def write_log(folder: Path, rows: list) -> None:
    path = folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n')


def test_losses_of_a_resumed_run_are_one_curve(tmp_path: Path):
    rows = [dict(loss=1.0 / i, iter=i, step=i) for i in (1, 2, 3)]
    write_log(tmp_path / '20260101_000000', rows)
    rows = [dict(loss=9.0, iter=i, step=i) for i in (3, 4)]
    write_log(tmp_path / '20260102_000000', [*rows, dict(mIoU=1, step=4)])
    assert read_losses(str(tmp_path)) == ([1, 2, 3, 4], [1.0, 0.5, 9.0, 9.0])
    draw_losses(str(tmp_path), str(tmp_path / 'curve.png'))
    picture = cv2.imread(str(tmp_path / 'curve.png'))
    # Okabe and Ito's blue, BGR: the curve is in the picture.
    assert (picture == (178, 114, 0)).all(-1).sum() > 50
    assert not list(tmp_path.glob('*.partial'))


def test_no_losses_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match='no logged loss'):
        draw_losses(str(tmp_path), str(tmp_path / 'curve.png'))
