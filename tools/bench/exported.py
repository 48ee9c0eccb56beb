"""Whole models and backbones as files, against PyTorch's eager mode."""

from __future__ import annotations

import functools
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Tuple

import numpy as np
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmconvnext import cli
from mmconvnext.configs import bare_type
from mmconvnext.deploy import (
    Description,
    export,
    load,
    parity,
    quantize,
    runtimes,
)
from mmconvnext.deploy.runner import MODELS, Model
from mmconvnext.files import write_image

from . import steps, subjects
from .timing import Row, compare, rounds

Run = Callable[[], object]
# Seconds: runtimes keep their threads awake after a run.
REST = 0.3
EAGER = 'eager'
# Subject: which file, which runtime, in which precision it computes.
FILES = {
    'onnxruntime': ('fp32', 'onnxruntime', None),
    'onnxruntime-int8': ('int8', 'onnxruntime', None),
    'openvino': ('fp32', 'openvino', None),
    'openvino-bf16': ('fp32', 'openvino', 'bf16'),
    'openvino-int8': ('int8', 'openvino', None),
    'openvino-int8-bf16': ('int8', 'openvino', 'bf16'),
}
# Backbones with the same weights.
BACKBONES = ('ours', 'timm')


class Maps(nn.Module):
    """A backbone as a file's module: from uint8 images to its maps."""

    outputs = ('map0', 'map1', 'map2', 'map3')
    maps: Dict[str, Tuple[int, int]] = {}

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tuple[Tensor, ...]:
        return tuple(self.backbone(image.float() / 255))


def backbone_runs(args: Namespace, folder: Path) -> Dict[str, Run]:
    """Ours and timm's, in eager mode and as files."""
    source = subjects.ours(args.version, args.arch).eval()
    built, missing = subjects.build(BACKBONES, source)
    for name, reason in missing.items():
        print(f'left out: {name}: {reason}', flush=True)
    runs: Dict[str, Run] = {}
    batch, nothing = noise(args), Description('segmentation', (), ())
    for name, backbone in built.items():
        module, file = Maps(backbone.eval()), folder / f'{name}.onnx'
        with torch.no_grad():
            export.write(export.trace(module, file), nothing, file)
        prefix = '' if name == 'ours' else f'{name} '
        runs[f'{prefix}{EAGER}'] = _eager(module, torch.from_numpy(batch))
        for subject, session in _sessions(file, args).items():
            runs[f'{prefix}{subject}'] = _call(session, batch, module.outputs)
    return runs


def _eager(module: nn.Module, image: Tensor) -> Run:
    def run() -> object:
        with torch.no_grad():
            return module(image)

    return run


def _call(session: runtimes.Session, batch: np.ndarray, names: tuple) -> Run:
    return lambda: session.run(batch, names)


def _sessions(file: Path, args: Namespace) -> Dict[str, runtimes.Session]:
    rows = {k: FILES[k] for k in args.subjects or FILES}
    files = {
        (kind, runtime): file if kind == 'fp32' else _int8(file, runtime, args)
        for kind, runtime, _ in rows.values()
    }
    return {
        name: runtimes.open_session(
            files[kind, runtime],
            runtime,
            precision=precision,
            threads=args.threads,
        )
        for name, (kind, runtime, precision) in rows.items()
    }


def _int8(file: Path, runtime: str, args: Namespace) -> Path:
    """The int8 version, calibrated on noise: for its time alone."""
    picture = file.with_suffix('.png')
    out = file.with_suffix(f'.{runtime}.onnx')
    write_image(noise(args)[0].transpose(1, 2, 0), picture)
    quantize.quantize(file, [picture], out, runtime)
    return out


def noise(args: Namespace) -> np.ndarray:
    """Images ``(N, 3, H, W)`` uint8."""
    shape = (args.batch, 3, *args.size)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def host_runs(config: str, args: Namespace, folder: Path) -> Dict[str, Run]:
    """A recipe's model: from a uint8 image to labels, or boxes and masks."""
    name = config.format(version='v2' * (args.version == 2), arch=args.arch)
    cfg = cli.read_config(steps.ROOT / 'configs' / name)
    simplify(cfg, args)
    model = build(cfg)
    file, batch = folder / 'model.onnx', noise(args)
    export.export(model, cfg, file)
    reference = parity.Reference(model, cfg)
    pictures = [image[::-1].transpose(1, 2, 0) for image in batch]
    runs: Dict[str, Run] = {EAGER: lambda: reference(pictures)}
    about = load(file).description
    for subject, session in _sessions(file, args).items():
        whole = MODELS[about.task](session, about)
        runs[subject] = _whole(whole, batch)
    return runs


def _whole(model: Model, batch: np.ndarray) -> Run:
    def run() -> List[object]:
        found, size = model.run(batch), batch.shape[2:]
        return [model.after(batch, i, size, found) for i in range(len(batch))]

    return run


def simplify(cfg: Config, args: Namespace) -> None:
    """Random weights, and whole images of the size asked for."""
    cfg.model.backbone.pop('init_cfg', None)
    for step in cfg.test_dataloader.dataset.pipeline:
        if bare_type(step) == 'Resize':
            step.update(scale=(args.size[1], args.size[0]), keep_ratio=False)
    if 'decode_head' in cfg.model:
        cfg.model.test_cfg = dict(mode='whole')


def build(cfg: Config) -> nn.Module:
    """Build a model; a detector finds as many objects as its file holds."""
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(registry.MODELS.build(cfg.model)).eval()
    model.init_weights()
    if 'roi_head' in cfg.model:
        # Fresh weights are sure of no class: the mask head would be idle.
        model.roi_head.bbox_head.fc_cls.weight.data *= 100
    return model


RUNS: Dict[str, Callable[[Namespace, Path], Dict[str, Run]]] = {
    'backbone': backbone_runs,
    'UPerNet': functools.partial(
        host_runs, 'upernet_convnext{version}_{arch}_ade20k.py'
    ),
    'Mask R-CNN': functools.partial(
        host_runs, 'mask_rcnn_convnext{version}_{arch}_coco.py'
    ),
}


def exported_rows(args: Namespace) -> Iterator[Row]:
    """How many times as fast as eager mode each file runs.

    Raises:
        ValueError: for an unknown subject.
    """
    for name in args.subjects or ():
        if name not in FILES:
            raise ValueError(
                f'subject must be one of {", ".join(FILES)}, got {name!r}'
            )
    cli.prepare_hosts()
    for name, make in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            times = rounds(make(args, Path(folder)), args.repeats, REST)
        for row in against_eager(times):
            yield dict(
                model=f'{name} V{args.version} {args.arch}',
                images='x'.join(map(str, (args.batch, 3, *args.size))),
                **row,
            )


def against_eager(times: Mapping[str, List[float]]) -> Iterator[Row]:
    """Medians, and ratios of a round: above 1, faster than eager mode."""
    for subject, kept in times.items():
        pair = {EAGER: times[EAGER], subject: kept}
        rows = compare(pair, subject)
        yield {**rows[0], 'subject': subject, 'ms': rows[-1]['ms']}
