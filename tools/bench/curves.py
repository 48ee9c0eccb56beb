"""A short training on each path of the ops: do the losses stay together?

The UPerNet recipe for CamVid on atto, from random weights. All runs have one
seed, hence the same weights, batches and dropped paths; that they had is
checked after every step.

Losses drift apart however right a path is, for training amplifies rounding:
two runs of plain PyTorch whose first weights differed in the last bit were
2e-4 apart after 20 steps and 3e-2 before the 60th (V1, as configured). What
a wrong path shows is a difference in the first steps.
"""

from __future__ import annotations

import tempfile
import zlib
from argparse import Namespace
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.hooks import Hook

from mmconvnext import launch, ops, report

from .subjects import VERSIONS
from .timing import Row

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/upernet_convnextv2_atto_camvid.py'
PATHS = ('reference', 'auto')
TAIL = 20
# What would validate, write or speak during the run.
QUIET = dict(
    val_cfg=None,
    val_dataloader=None,
    val_evaluator=None,
    test_cfg=None,
    test_dataloader=None,
    test_evaluator=None,
    log_level='ERROR',
)


class Seen(NamedTuple):
    """Checksums of a batch and of the random state that a step left."""

    batch: int
    random: int


class Recorder(Hook):
    """Keeps the loss of every step, and what the step saw."""

    def __init__(self) -> None:
        self.losses: List[float] = []
        self.seen: List[Seen] = []

    def after_train_iter(
        self,
        runner: object,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        self.losses.append(outputs['loss'].item())
        batch = 0
        for image in data_batch['inputs']:
            batch = zlib.crc32(image.numpy().tobytes(), batch)
        self.seen.append(Seen(batch, random_state()))


def random_state() -> int:
    """Checksum of where dropout and drop path left the generators."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return zlib.crc32(torch.cat(states).numpy().tobytes())


def configure(args: Namespace, work_dir: Path) -> Config:
    """Shorten the recipe, and let it only train.

    Raises:
        ValueError: for fewer steps than one.
        FileNotFoundError: where the data set is not.
    """
    if args.steps < 1:
        raise ValueError(f'steps must be 1 or more, got {args.steps}')
    cfg = launch.read_config(CONFIG)
    if args.data_root is not None:
        launch.set_data_root(cfg, args.data_root)
    launch.check_data(cfg, ['train_dataloader'])
    backbone = VERSIONS[args.version].__name__
    cfg.model.backbone.type = f'mmconvnext.{backbone}'
    cfg.merge_from_dict(QUIET)
    cfg.default_hooks.checkpoint = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.steps)
    cfg.work_dir = str(work_dir)
    # Loggers and visualizers are kept by name for the whole process.
    cfg.experiment_name = cfg.visualizer.name = work_dir.name
    return cfg


def train(args: Namespace, path: str) -> Recorder:
    """Run the recipe on one path."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix=f'{path}-') as folder:
        runner = launch.build_runner(configure(args, Path(folder)))
        runner.register_hook(recorder)
        with ops.use(path):
            runner.train()
    return recorder


def differences(losses: List[float], reference: List[float]) -> np.ndarray:
    """Relative difference of each step's loss."""
    a, b = np.array(losses), np.array(reference)
    return np.abs(a - b) / np.abs(b)


def check_alike(path: str, run: Recorder, reference: Recorder) -> None:
    """Raise a ValueError where runs differ in more than the path."""
    for step, (a, b) in enumerate(zip(run.seen, reference.seen)):
        for what in Seen._fields:
            if getattr(a, what) != getattr(b, what):
                raise ValueError(
                    f'{path} and {PATHS[0]} differ in more than the path: '
                    f'{what} of step {step}'
                )


def draw(runs: Dict[str, Recorder], title: str) -> Figure:
    """Draw the losses, and below how far they are from the reference's."""
    figure = Figure(figsize=(8, 6), layout='constrained')
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    for index, (path, run) in enumerate(runs.items()):
        every = max(1, len(run.losses) // 10)
        look = dict(report.style(index), markevery=every, markersize=5)
        # Dashes: one curve lies on the other.
        look['linestyle'] = ('-', '--')[index % 2]
        top.plot(run.losses, label=path, **look)
        if index:
            apart = differences(run.losses, runs[PATHS[0]].losses)
            bottom.plot(apart, label=path, **look)
    top.set(ylabel='loss', title=title)
    bottom.set(xlabel='step', ylabel=f'relative difference\nto {PATHS[0]}')
    bottom.set_yscale('log', nonpositive='mask')
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure


def curve_rows(args: Namespace) -> Iterator[Row]:
    """Losses of a short training on each path, from one seed."""
    runs: Dict[str, Recorder] = {}
    title = f'UPerNet V{args.version} atto, {args.steps} steps'
    for path in PATHS:
        runs[path] = run = train(args, path)
        reference = runs[PATHS[0]]
        check_alike(path, run, reference)
        apart = differences(run.losses, reference.losses).max()
        yield dict(
            model=title,
            path=path,
            first_loss=round(run.losses[0], 5),
            last_loss=round(run.losses[-1], 5),
            largest_difference=f'{apart:.1e}',
            mean_of_last=round(float(np.mean(run.losses[-TAIL:])), 5),
        )
    if args.picture:
        report.save(draw(runs, title), args.picture)
