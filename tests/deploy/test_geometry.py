"""What runs around a file, in numpy, equals what the hosts do."""

import mmcv
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from mmconvnext.deploy import geometry

RULES = [
    None,
    dict(scale=[1333, 800], keep_ratio=True),
    dict(scale=[2048, 512], keep_ratio=True),
    dict(scale=[320, 320], keep_ratio=True),
    dict(scale=[300, 200], keep_ratio=False),
    dict(scale_factor=[0.5, 0.5], keep_ratio=True),
    dict(scale_factor=[1.25, 0.75], keep_ratio=False),
]
SIZES = [(360, 480), (481, 360), (33, 1000), (1, 7), (640, 640)]


def of_host(rule: dict, height: int, width: int) -> tuple:
    """Height and width after the host's Resize."""
    tiny.load('mask_rcnn_convnextv2_tiny_coco.py')
    from mmcv.transforms import Resize

    rule = {k: tuple(v) if k != 'keep_ratio' else v for k, v in rule.items()}
    image = np.zeros((height, width, 3), np.uint8)
    return Resize(**rule)(dict(img=image))['img'].shape[:2]


@pytest.mark.parametrize('rule', RULES, ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_input_size_is_the_hosts(size: tuple, rule: dict) -> None:
    wanted = size if rule is None else of_host(rule, *size)
    assert geometry.input_size(*size, rule) == wanted


def test_images_are_resized_as_the_host_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    wanted = mmcv.imresize(image, (90, 40))
    assert np.array_equal(geometry.resize_image(image, 40, 90), wanted)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    'old, new', [((7, 9), (20, 31)), ((20, 31), (7, 9)), ((1, 4), (5, 1))]
)
def test_maps_are_resized_as_pytorch_does(
    old: tuple, new: tuple, align_corners: bool
) -> None:
    maps = torch.randn(3, *old)
    wanted = F.interpolate(
        maps[None], new, mode='bilinear', align_corners=align_corners
    )[0]
    found = geometry.resize_maps(maps.numpy(), *new, align_corners)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_largest_is_the_argmax_of_the_resized_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = np.random.default_rng(0).normal(size=(7, 9, 11)).astype('float32')
    wanted = geometry.resize_maps(maps, 20, 30).argmax(0)
    monkeypatch.setattr(geometry, 'BUDGET', 20 * 30 * 2)  # four parts
    assert np.array_equal(geometry.largest(maps, 20, 30, False), wanted)


@pytest.mark.parametrize(
    'size', [(64, 96), (48, 48), (40, 100), (131, 49), (20, 20)], ids=str
)
def test_windows_are_the_hosts(size: tuple) -> None:
    """Their places are those that the host's loop cuts out of an image."""
    from mmseg.models import EncoderDecoder

    seen = []

    class Recorder(EncoderDecoder):
        out_channels = 1

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.test_cfg = tiny.Config(
                dict(crop_size=(48, 48), stride=(32, 20))
            )

        def encode_decode(self, x: torch.Tensor, metas: list) -> torch.Tensor:
            seen.append(x[0, :, [0, -1], [0, -1]].flatten().tolist())
            return x[:, :1]

    place = torch.arange(size[0] * size[1]).view(1, 1, *size).float()
    Recorder().slide_inference(place, [dict(img_shape=size)])
    found = [
        [float(place[0, 0, r.start, c.start])]
        + [float(place[0, 0, r.stop - 1, c.stop - 1])]
        for r, c in geometry.windows(*size, (48, 48), (32, 20))
    ]
    assert found == seen


BOXES = [
    [3.2, 4.7, 40.1, 33.3],
    [-5.0, -3.0, 20.0, 12.0],
    [30.0, 30.0, 80.0, 70.0],  # leaves the image
    [10.0, 10.0, 10.4, 10.3],  # smaller than a pixel
    [10.0, 10.0, 10.0, 20.0],  # no width
    [0.0, 0.0, 50.0, 40.0],
]


def test_masks_are_pasted_as_the_host_does() -> None:
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope
    from mmengine.structures import InstanceData

    boxes = torch.tensor(BOXES)
    masks = torch.randn(len(boxes), 1, 28, 28)
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = FCNMaskHead(num_convs=1, in_channels=4, num_classes=1)
    labels = torch.zeros(len(boxes), dtype=torch.long)
    found = InstanceData(bboxes=boxes.clone(), labels=labels)
    meta = dict(ori_shape=(40, 50), scale_factor=(1.0, 1.0))
    cfg = ConfigDict(mask_thr_binary=0.5)
    wanted = head.predict_by_feat(
        (masks,), [found], [meta], cfg, rescale=True
    )[0].masks
    pasted = geometry.paste(
        masks[:, 0].sigmoid().numpy(), boxes.numpy(), 40, 50, 0.5
    )
    differ = (pasted != wanted.numpy()).sum((1, 2))
    # A pixel whose value is .5 but for rounding may go either way.
    assert (differ <= 1).all(), differ
    assert pasted[[0, 1, 2, 5]].any((1, 2)).all()
