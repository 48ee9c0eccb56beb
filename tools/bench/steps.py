"""A whole training step with only the backbone exchanged."""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path
from typing import Callable, Dict, Iterator, Tuple

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmconvnext import cli

from .backbones import images, runner, subjects_of
from .subjects import OURS
from .timing import Row, compare, peak_mib, rounds

ROOT = Path(__file__).resolve().parents[2]


def _host(config: str, args: Namespace) -> nn.Module:
    cfg = cli.read_config(ROOT / 'configs' / config)
    cfg.model.backbone.pop('init_cfg')
    cfg.model.backbone.update(drop_path_rate=0.0)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def segmentor(args: Namespace) -> Tuple[nn.Module, dict]:
    """UPerNet of the recipe with this backbone, and a random batch."""
    if args.batch < 2:
        raise ValueError(
            'a UPerNet step normalises over the batch: batch must be 2 or '
            f'more, got {args.batch}'
        )
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    version = 'v2' if args.version == 2 else ''
    model = _host(f'upernet_convnext{version}_{args.arch}_ade20k.py', args)
    model.data_preprocessor.size = tuple(args.size)
    shape = tuple(args.size)
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
    label = PixelData(data=torch.randint(150, (1, *shape)))
    samples = [
        SegDataSample(metainfo=meta, gt_sem_seg=label)
        for _ in range(args.batch)
    ]
    inputs = [torch.randint(255, (3, *shape)).byte() for _ in samples]
    return model, dict(inputs=inputs, data_samples=samples)


def mask_rcnn(args: Namespace) -> Tuple[nn.Module, dict]:
    """Mask R-CNN of the recipe with this backbone, and a random batch."""
    from mmdet.testing import demo_mm_inputs

    version = 'v2' if args.version == 2 else ''
    model = _host(f'mask_rcnn_convnext{version}_{args.arch}_coco.py', args)
    data = demo_mm_inputs(
        args.batch,
        [[3, *args.size]] * args.batch,
        num_items=[10] * args.batch,
        num_classes=80,
        with_mask=True,
    )
    return model, data


def step_rows(
    args: Namespace, name: str, build: Callable[[Namespace], Tuple]
) -> Iterator[Row]:
    """The step with each subject, and the share of the backbone in it."""
    cli.prepare_hosts()  # before a subject's library imports mmdet
    _, models = subjects_of(args)
    host, data = build(args)
    host = host.to(args.device).train()
    optim = dict(optimizer=dict(type='SGD', lr=1e-6))
    runs: Dict[str, Callable[[], object]] = {}
    for key, backbone in models.items():
        host.backbone = backbone
        wrapper = build_optim_wrapper(host, optim)

        def step(backbone: nn.Module = backbone, wrapper=wrapper) -> None:
            torch.manual_seed(0)
            host.backbone = backbone
            host.train_step(data, wrapper)

        x = images(args, key, (args.batch, 3, *args.size))
        runs[key] = step
        runs[f'{key} alone'] = runner(backbone, x, 'training', args)
    times = rounds(runs, args.repeats)
    for row in compare({k: times[k] for k in models}, OURS):
        alone = statistics.median(times[f'{row["subject"]} alone'])
        peak = peak_mib(runs[row['subject']], args.device)
        share = round(100 * alone / row['ms'])
        yield dict(
            model=f'{name} V{args.version} {args.arch}',
            images='x'.join(map(str, (args.batch, 3, *args.size))),
            precision=args.precision,
            **row,
            backbone_percent=share,
            peak_mib=f'{peak:.0f}',
        )


def segmentor_rows(args: Namespace) -> Iterator[Row]:
    return step_rows(args, 'UPerNet', segmentor)


def mask_rcnn_rows(args: Namespace) -> Iterator[Row]:
    return step_rows(args, 'Mask R-CNN', mask_rcnn)
