"""The stand-in for mmcv's operators against the compiled ones.

Sizes are those of Mask R-CNN on images of 800 x 1216.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Callable, Iterator, Tuple

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from mmconvnext import cli, mmcv_ops

from .timing import Row, pair

ROOT = Path(__file__).resolve().parents[2]

IMAGE = (800, 1216)
# name, images, RoIs, bins, FPN level
ROI_CASES = (
    ('box head, training', 2, 512, 7, 0),
    ('box head, training', 2, 512, 7, 1),
    ('box head, training', 2, 256, 7, 2),
    ('box head, training', 2, 64, 7, 3),
    ('mask head, training', 2, 128, 14, 0),
    ('mask head, training', 2, 128, 14, 1),
    ('box head, testing', 1, 1000, 7, 0),
    ('box head, testing', 1, 1000, 7, 1),
)


def random_boxes(count: int, low: float, high: float) -> Tensor:
    """Boxes (count, 4) inside the image, sides log-uniform in low..high."""
    sides = low * (high / low) ** torch.rand(count, 2)
    centre = torch.rand(count, 2) * torch.tensor(IMAGE[::-1])
    boxes = torch.cat([centre - sides / 2, centre + sides / 2], 1)
    return torch.minimum(boxes.clamp(min=0), torch.tensor(IMAGE[::-1] * 2))


def nms_cases() -> Iterator[Tuple[str, Callable]]:
    for count, offset in ((1000, 0.0), (2000, 0.0), (8741, 1217.0)):
        boxes, scores = random_boxes(count, 16, 400), torch.rand(count)
        boxes = (
            boxes
            + torch.arange(count).div(2000, rounding_mode='floor')[:, None]
            * offset
        )
        name = f'nms {count} boxes' + (' of 5 levels' if offset else '')
        yield (
            name,
            lambda ext: ext.nms(boxes, scores, iou_threshold=0.7, offset=0),
        )
    yield (
        'softnms 1000 boxes',
        lambda ext: ext.softnms(
            boxes[:1000],
            scores[:1000],
            torch.empty(1000, 5),
            iou_threshold=0.5,
            sigma=0.5,
            min_score=0.05,
            method=1,
            offset=0,
        ),
    )
    dets = torch.cat([boxes, scores[:, None]], 1)[:2000]
    yield 'nms_match 2000 boxes', lambda ext: ext.nms_match(dets, 0.5)


def roi_cases() -> Iterator[Tuple[str, Callable]]:
    for name, images, count, bins, level in ROI_CASES:
        stride = 4 << level
        feature = torch.randn(
            images, 256, IMAGE[0] // stride, IMAGE[1] // stride
        )
        rois = torch.cat(
            [
                torch.randint(images, (count, 1)).float(),
                random_boxes(count, 10 * stride, 28 * stride),
            ],
            1,
        )
        grad, none = torch.randn(count, 256, bins, bins), torch.empty(0)
        spec = dict(
            aligned_height=bins,
            aligned_width=bins,
            spatial_scale=1 / stride,
            sampling_ratio=0,
            pool_mode=1,
            aligned=True,
        )
        title = f'{count} RoIs {bins}x{bins} stride {stride}, {name}'
        yield (
            f'roi_align {title}',
            lambda ext: ext.roi_align_forward(
                feature, rois, torch.zeros_like(grad), none, none, **spec
            ),
        )
        if 'training' in name:
            yield (
                'its gradient',
                lambda ext: ext.roi_align_backward(
                    grad, rois, none, none, torch.zeros_like(feature), **spec
                ),
            )


def deform_cases() -> Iterator[Tuple[str, Callable]]:
    import mmcv.ops

    image = torch.randn(1, 64, 50, 76, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)
    offset = torch.randn(1, 18, 50, 76, requires_grad=True)
    mask = torch.rand(1, 9, 50, 76, requires_grad=True)

    def step(op: Callable, *tensors: Tensor) -> None:
        op(*tensors, *rest).sum().backward()

    rest = (1, 1, 1)
    yield (
        'deform_conv2d 64x50x76 and gradients',
        lambda ext: step(mmcv.ops.deform_conv2d, image, offset, weight),
    )
    yield (
        'modulated_deform_conv2d 64x50x76 and gradients',
        lambda ext: step(
            mmcv.ops.modulated_deform_conv2d, image, offset, mask, weight, None
        ),
    )


def need_compiled() -> object:
    mmcv_ops.install()
    if mmcv_ops.status()['source'] != 'compiled':
        raise ValueError(
            'this mode compares with compiled mmcv, which is not installed; '
            'python tools/doctor.py says how to get it'
        )
    return sys.modules[mmcv_ops.NAME]


def operator_rows(args: Namespace) -> Iterator[Row]:
    """Each operator of the stand-in against the compiled one."""
    compiled = need_compiled()

    def stand_in(run: Callable) -> Callable:
        def standing_in() -> None:
            with mmcv_ops.standing_in() as module:
                run(module)

        return standing_in

    for cases in (nms_cases, roi_cases, deform_cases):
        for name, run in cases():
            yield pair(
                name, lambda r=run: r(compiled), stand_in(run), args.repeats
            )


def detector() -> Tuple[torch.nn.Module, dict]:
    """Mask R-CNN with ConvNeXt V2 atto and full heads, and one image."""
    from mmdet.testing import demo_mm_inputs

    init_default_scope('mmdet')
    cfg = cli.read_config(ROOT / 'configs/mask_rcnn_convnextv2_atto_coco.py')
    cfg.model.backbone.pop('init_cfg')
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = demo_mm_inputs(
        1, [[3, *IMAGE]], num_items=[10], num_classes=80, with_mask=True
    )
    return model, data


def detector_rows(args: Namespace) -> Iterator[Row]:
    """A whole training step and a prediction with either implementation."""
    need_compiled()
    model, data = detector()
    optim = dict(optimizer=dict(type='SGD', lr=1e-6))
    wrapper = build_optim_wrapper(model, optim)

    def train() -> None:
        torch.manual_seed(0)
        model.train().train_step(data, wrapper)

    def predict() -> None:
        with torch.no_grad():
            model.eval().test_step(data)

    for name, run in (('training step', train), ('prediction', predict)):

        def ours(run: Callable = run) -> None:
            with mmcv_ops.standing_in():
                run()

        yield pair(f'Mask R-CNN atto {name}', run, ours, args.repeats)
