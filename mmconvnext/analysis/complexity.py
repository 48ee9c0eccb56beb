"""Parameters and FLOPs of whole models, counted as the papers do.

FLOPs are multiply-adds, at batch 1, of convolutions (transposed ones
included) and matrix products; norms (GRN included), activations, pooling,
resizing, RoIAlign and NMS are not counted. A detector's heads see 1,000 boxes
and 100 masks per image, whatever the image holds. Nothing is computed:
tensors are on the meta device, so that every size takes seconds.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, NamedTuple, Tuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# What the published numbers were counted at (arXiv 2201.03545, tables 3, 4).
DETECTION_SHAPE = (800, 1280)
BOXES, MASKS = 1000, 100


class Complexity(NamedTuple):
    """Parameters of the model, multiply-adds of its parts at a shape."""

    params: int
    shape: Tuple[int, int]
    parts: Dict[str, int]

    @property
    def flops(self) -> int:
        return sum(self.parts.values())


def default_shape(cfg: Config) -> Tuple[int, int]:
    """Return the shape that published FLOPs of the config's kind are at."""
    if 'roi_head' in cfg.model:
        return DETECTION_SHAPE
    height, width = cfg.model.data_preprocessor.size
    return height, 4 * width


def as_list(module: nn.Module) -> List[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def detector_parts(
    model: nn.Module, image: Tensor
) -> Iterator[Tuple[str, Callable[[], object]]]:
    """Yield what a two-stage detector does to an image, part by part."""
    maps = model.backbone(image)
    pyramid = model.neck(maps)
    yield 'backbone', lambda: model.backbone(image)
    yield 'neck', lambda: model.neck(maps)
    yield 'rpn_head', lambda: model.rpn_head(pyramid)
    roi = model.roi_head
    for name, extractor, number in (
        ('bbox_head', roi.bbox_roi_extractor, BOXES),
        ('mask_head', roi.mask_roi_extractor, MASKS),
    ):
        size = as_list(extractor)[0].roi_layers[0].output_size
        channels = as_list(extractor)[0].out_channels
        crops = image.new_empty(number, channels, *size)
        heads = as_list(getattr(roi, name))
        yield name, lambda crops=crops, heads=heads: [h(crops) for h in heads]


def segmentor_parts(
    model: nn.Module, image: Tensor
) -> Iterator[Tuple[str, Callable[[], object]]]:
    """Yield what a segmentor does to an image; the auxiliary head rests."""
    maps = model.backbone(image)
    yield 'backbone', lambda: model.backbone(image)
    yield 'decode_head', lambda: model.decode_head(maps)


def multiply_adds(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def complexity(cfg: Config, shape: Tuple[int, int]) -> Complexity:
    """Count a config's model at an input of ``shape`` (height, width)."""
    init_default_scope(cfg.default_scope)
    with torch.device('meta'), torch.no_grad():
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.to('meta').eval()
        image = torch.empty(1, model.backbone.in_channels, *shape)
        split = detector_parts if 'roi_head' in cfg.model else segmentor_parts
        parts = {name: multiply_adds(run) for name, run in split(model, image)}
    params = sum(p.numel() for p in model.parameters())
    return Complexity(params, shape, parts)


def table(rows: List[Tuple[str, Complexity]], parts: bool) -> str:
    """Lay the counts out in Markdown."""
    lines = [
        '| config | input (H x W) | parameters | FLOPs |',
        '|---|---|---|---|',
    ]
    for name, row in rows:
        size = f'{row.shape[0]} x {row.shape[1]}'
        params, flops = row.params / 1e6, row.flops / 1e9
        lines.append(f'| {name} | {size} | {params:.1f} M | {flops:.1f} G |')
        lines += [
            f'| - {part} | | | {flops / 1e9:.1f} G |'
            for part, flops in row.parts.items()
            if parts
        ]
    return '\n'.join(lines)
