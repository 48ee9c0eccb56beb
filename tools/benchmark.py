"""Measure speed in pairs: ours against a reference, in turn, one process.

    python tools/benchmark.py operators   # stand-in against compiled mmcv
    python tools/benchmark.py detector    # Mask R-CNN steps with either
    python tools/benchmark.py fcmae       # visible patches against dense maps

Each repeat runs both sides one after the other on the same input; printed
are medians and the median of the ratios. ``operators`` and ``detector`` need
an mmcv with compiled operators. Sizes are those of Mask R-CNN on images of
800 x 1216.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from mmconvnext import FCMAE, ConvNeXtBlock, launch, mmcv_ops, ops
from mmconvnext.fcmae import to_patches
from mmconvnext.layers import to_nchw, to_nhwc

ROOT = Path(__file__).resolve().parents[1]
Row = Dict[str, object]

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


def pair(name: str, reference: Callable, ours: Callable, repeats: int) -> Row:
    """Time two functions in turn; the first round only warms up."""
    times: Tuple[List[float], List[float]] = ([], [])
    for _ in range(repeats + 1):
        for run, kept in zip((reference, ours), times):
            begin = time.perf_counter()
            run()
            kept.append(1e3 * (time.perf_counter() - begin))
    ratios = [b / a for a, b in zip(*times)][1:]
    return dict(
        name=name,
        reference_ms=round(statistics.median(times[0][1:]), 1),
        ours_ms=round(statistics.median(times[1][1:]), 1),
        ratio=round(statistics.median(ratios), 2),
        lowest=round(min(ratios), 2),
        highest=round(max(ratios), 2),
    )


def need_compiled() -> object:
    mmcv_ops.install()
    if mmcv_ops.status()['source'] != 'compiled':
        raise ValueError(
            'this mode compares with compiled mmcv, which is not installed; '
            'python tools/doctor.py says how to get it'
        )
    return sys.modules[mmcv_ops.NAME]


def operator_rows(repeats: int) -> Iterator[Row]:
    """Each operator of the stand-in against the compiled one."""
    compiled = need_compiled()

    def stand_in(run: Callable) -> Callable:
        def standing_in() -> None:
            with mmcv_ops.standing_in() as module:
                run(module)

        return standing_in

    for cases in (nms_cases, roi_cases, deform_cases):
        for name, run in cases():
            yield pair(name, lambda r=run: r(compiled), stand_in(run), repeats)


def detector() -> Tuple[torch.nn.Module, dict]:
    """Mask R-CNN with ConvNeXt V2 atto and full heads, and one image."""
    from mmdet.testing import demo_mm_inputs

    init_default_scope('mmdet')
    cfg = launch.read_config(
        ROOT / 'configs/mask_rcnn_convnextv2_atto_coco.py'
    )
    cfg.model.backbone.pop('init_cfg')
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = demo_mm_inputs(
        1, [[3, *IMAGE]], num_items=[10], num_classes=80, with_mask=True
    )
    return model, data


def detector_rows(repeats: int) -> Iterator[Row]:
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

        yield pair(f'Mask R-CNN atto {name}', run, ours, repeats)


class MaskedDense(torch.nn.Module):
    """An FCMAE's training step on dense maps times the mask.

    The way of the authors' JAX code and of every port without a sparse
    library, from the same operators and parameters.
    """

    def __init__(self, model: FCMAE) -> None:
        super().__init__()
        self.model = model

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        backbone, x = self.model.backbone, images
        for down, stage in zip(backbone.downsample_layers, backbone.stages):
            x = down(x)
            times = x.size(2) // mask.size(1)
            seen = (~mask).repeat_interleave(times, 1)
            seen = seen.repeat_interleave(times, 2)[..., None].to(x.dtype)
            x = x * to_nchw(seen)
            for block in stage:
                x = self.block(block, x, seen)
        return backbone.norm3(x)

    def block(self, block: ConvNeXtBlock, x: Tensor, seen: Tensor) -> Tensor:
        norm = (block.norm.weight, block.norm.bias)
        y = ops.layer_norm(to_nhwc(block.dwconv(x)), norm, block.norm.eps)
        y = F.gelu(block.pwconv1(y))
        y = block.pwconv2(ops.grn(y * seen, block.grn.affine))
        return to_nchw((to_nhwc(x) + y) * seen)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        model = self.model
        x = model.proj(self.encode(images, mask))
        x = torch.where(mask[:, None], model.mask_token.to(x.dtype), x)
        pred = to_nhwc(model.pred(model.decoder(x)))
        target = to_patches(images)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
        loss = (pred - target).pow(2).mean(-1)
        return (loss * mask).sum() / mask.sum()


# processor: archs, batch sizes, dtype, the least ratio of dense to visible
FCMAE_CASES = {
    'cpu': ((('atto', 8, 1.7), ('tiny', 8, 2.2)), torch.float32),
    'cuda': (
        tuple((a, n, 2.0) for a in ('tiny', 'base') for n in (64, 256)),
        torch.bfloat16,
    ),
}


def saved_bytes(model: torch.nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for its gradients, parameters aside."""
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: Dict[int, int] = {}
    alive: List[Tensor] = []  # else a place in memory could be counted twice

    def keep(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        run()
    return sum(size for at, size in kept.items() if at not in owned)


def fcmae_rows(repeats: int) -> Iterator[Row]:
    """Training steps at 224 x 224, mask .6: dense maps, visible patches."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cases, dtype = FCMAE_CASES[device]
    for arch, batch, target in cases:
        backbone = dict(type='mmconvnext.ConvNeXtV2', arch=arch)
        model = FCMAE(backbone).to(device)
        for name, param in model.named_parameters():
            if '.grn.' in name:
                torch.nn.init.normal_(param, std=0.1)
        images = torch.randn(batch, 3, 224, 224, device=device)
        mask = model.random_mask(images)
        dense = MaskedDense(model)

        def loss(visible: bool) -> Tensor:
            with torch.autocast(device, dtype, dtype != torch.float32):
                if visible:
                    return model(images, mask=mask)['loss']
                return dense(images, mask)

        def step(visible: bool) -> None:
            model.zero_grad()
            loss(visible).backward()
            if device == 'cuda':
                torch.cuda.synchronize()

        def gradients(visible: bool) -> List[Tensor]:
            step(visible)
            return [p.grad.clone() for p in model.parameters()]

        check_gradients(gradients(False), gradients(True), dtype)
        title = f'FCMAE {arch} batch {batch} {str(dtype)[6:]}'
        row = pair(title, lambda: step(False), lambda: step(True), repeats)
        yield {**row, 'target': f'ratio <= {1 / target:.2f}'}
        kept = [
            saved_bytes(model, lambda v=v: loss(v)) / 1e6
            for v in (False, True)
        ]
        yield dict(
            name=f'{title}, MB kept for gradients',
            reference_mb=round(kept[0]),
            ours_mb=round(kept[1]),
            ratio=round(kept[1] / kept[0], 2),
            target='ratio < 0.50',
        )


def check_gradients(
    expected: List[Tensor], found: List[Tensor], dtype: torch.dtype
) -> None:
    """Raise where the two sides do not compute the same."""
    limit = 1e-3 if dtype == torch.float32 else 0.1
    for a, b in zip(expected, found):
        error = float((a - b).norm() / a.norm().clamp(min=1e-12))
        if error > limit:
            raise ValueError(f'gradients differ by {error:.1e}: not timed')


MODES: Dict[str, Callable[[int], Iterator[Row]]] = {
    'fcmae': fcmae_rows,
    'operators': operator_rows,
    'detector': detector_rows,
}


def environment(threads: int) -> Dict[str, str]:
    return dict(
        date=time.strftime('%Y-%m-%d'),
        processor=_processor(),
        threads=str(threads),
        load=' '.join(f'{x:.1f}' for x in os.getloadavg()),
        python=platform.python_version(),
        torch=torch.__version__,
    )


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.split(': ')[1] for x in lines if x.startswith('model name')]
    return names[0] if names else platform.processor()


def write_csv(path: Path, rows: List[Row], about: Dict[str, str]) -> None:
    part = path.with_name(f'.{path.name}')
    with open(part, 'w', newline='') as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)
    os.replace(part, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('mode', choices=list(MODES))
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--out', type=Path, help='CSV file for the rows')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    about = environment(args.threads)
    print(' | '.join(about.values()), flush=True)
    rows = []
    try:
        for row in MODES[args.mode](args.repeats):
            rows.append(row)
            print(' | '.join(map(str, row.values())), flush=True)
    except ValueError as error:
        sys.exit(f'error: {error}')
    if args.out:
        write_csv(args.out, rows, about)


if __name__ == '__main__':
    main()
