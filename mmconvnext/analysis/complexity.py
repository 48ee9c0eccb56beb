"""Parameters and FLOPs of whole models, counted as the papers do.

FLOPs are multiply-adds, at batch 1, of convolutions (transposed ones
included) and matrix products; norms (GRN included), activations, pooling,
resizing, RoIAlign and NMS are not counted. A detector's heads see 1,000 boxes
and 100 masks per image, whatever the image holds. Sampling at points, as in
deformable attention, is interpolation and not counted either; attention's own
products are.

Nothing is computed: tensors are on the meta device, so that every size takes
seconds. The exception is what has queries (DETR, DINO, MaskFormer and their
like): it looks at values, so it runs on the CPU, with zeros for weights.
"""

from __future__ import annotations

import copy
import inspect
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..configs import enter_scope, host_of

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
    if host_of(cfg) == 'mmdet':
        return DETECTION_SHAPE
    size = (cfg.model.get('data_preprocessor') or {}).get('size')
    if not size:
        raise ValueError(
            'the config has no model.data_preprocessor.size; give --shape'
        )
    return size[0], 4 * size[1]


def as_modules(module: nn.Module) -> List[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def parts_of(
    model: nn.Module, image: Tensor
) -> Iterator[Tuple[str, Callable[[], object]]]:
    """Yield what a model does to an image, part by part.

    The auxiliary heads of a segmentor do nothing then.

    Raises:
        ValueError: for a model that is neither a segmentor nor a detector
            with a transformer, dense heads or RoI heads.
    """
    maps = model.backbone(image)
    yield 'backbone', lambda: model.backbone(image)
    if getattr(model, 'neck', None) is not None:
        maps = model.neck(before := maps)
        yield 'neck', lambda: model.neck(before)
    if hasattr(model, 'forward_transformer'):
        yield 'transformer', lambda: _transformer(model, image, maps)
        return
    heads = [name for name in DENSE_HEADS if getattr(model, name, None)]
    for name in heads:
        yield name, lambda name=name: _head(getattr(model, name), image, maps)
    if hasattr(model, 'roi_head'):
        yield from _roi_parts(model.roi_head, image)
    elif not heads:
        raise ValueError(
            f'{type(model).__name__} has none of {", ".join(DENSE_HEADS)} or '
            f'roi_head, whose FLOPs are counted'
        )


DENSE_HEADS = (
    'decode_head',
    'panoptic_head',
    'rpn_head',
    'bbox_head',
    'mask_head',
)


def _transformer(
    model: nn.Module, image: Tensor, maps: Sequence[Tensor]
) -> None:
    """Run what follows the neck of DETR and its like."""
    for name, part in model.named_children():
        if name not in ('backbone', 'neck'):
            _fill(part)
    # Embeddings of levels belong to the model itself.
    for name, parameter in list(model.named_parameters(recurse=False)):
        zeros = torch.zeros(parameter.shape, device='cpu')
        setattr(model, name, nn.Parameter(zeros))
    with torch.device('cpu'):
        inputs = model.forward_transformer(_zeros(maps), _samples(image))
        model.bbox_head(**inputs)


def _fill(part: nn.Module) -> None:
    """Bring a part from the meta device to the CPU, full of zeros."""
    part.to_empty(device='cpu')
    for tensor in (*part.parameters(), *part.buffers()):
        tensor.zero_()


def _zeros(maps: Sequence[Tensor]) -> List[Tensor]:
    return [torch.zeros(each.shape, device='cpu') for each in maps]


def _samples(image: Tensor) -> List[BaseDataElement]:
    """Say how large the image is, as a loader's samples do."""
    size = tuple(image.shape[-2:])
    names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return [BaseDataElement(metainfo=dict.fromkeys(names, size))]


def _head(head: nn.Module, image: Tensor, maps: Sequence[Tensor]) -> None:
    """Run a head, or the heads of a cascade, over feature maps."""
    if 'batch_data_samples' in inspect.signature(head.forward).parameters:
        _fill(head)
        with torch.device('cpu'):
            head(_zeros(maps), _samples(image))
        return
    result = None
    for each in as_modules(head):
        result = each(maps) if result is None else each(maps, result)


def _roi_parts(
    roi: nn.Module, image: Tensor
) -> Iterator[Tuple[str, Callable[[], object]]]:
    for part, number in (('bbox', BOXES), ('mask', MASKS)):
        if getattr(roi, f'{part}_head', None) is None:
            continue
        extractor = getattr(roi, f'{part}_roi_extractor', None)
        # Without its own, the mask head reads what the box head does.
        first = as_modules(extractor or roi.bbox_roi_extractor)[0]
        size = first.roi_layers[0].output_size
        crops = image.new_empty(number, first.out_channels, *size)
        heads = as_modules(getattr(roi, f'{part}_head'))
        yield (
            f'{part}_head',
            lambda crops=crops, heads=heads: [head(crops) for head in heads],
        )


def multiply_adds(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def complexity(cfg: Config, shape: Tuple[int, int]) -> Complexity:
    """Count a config's model at an input of ``shape`` (height, width)."""
    enter_scope(cfg)
    with torch.device('meta'), torch.no_grad():
        # Some of the hosts' models write into their config.
        model = MODELS.build(copy.deepcopy(cfg.model))
        model = revert_sync_batchnorm(model)
        model.to('meta').eval()
        channels = getattr(model.backbone, 'in_channels', 3)
        image = torch.empty(1, channels, *shape)
        parts = {n: multiply_adds(run) for n, run in parts_of(model, image)}
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
