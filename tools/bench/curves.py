"""A short training on each path of the ops: do the losses stay together?

The UPerNet recipe for CamVid on atto, from random weights. All runs have one
seed, hence the same weights, batches and dropped paths; that they had is
checked after every step.

Losses drift apart however right a path is, for training amplifies rounding.
A third run shows how far: plain PyTorch again, whose first weights differ
in the last bit. A wrong path shows in the first steps, and in float64, where
rounding takes longer to grow than a short training lasts.
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

from mmconvnext import cli, ops
from mmconvnext.analysis import plots

from .subjects import VERSIONS
from .timing import Row

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/upernet_convnextv2_atto_camvid.py'
NUDGED = 'reference, nudged'
# What is compared, the reference first, and the path it runs on.
RUNS = {'reference': 'reference', 'fused': 'fused', NUDGED: 'reference'}
PRECISIONS = {'float32': torch.float32, 'float64': torch.float64}
PLAIN = 'reference'
TAIL = 20
# Switches off validation, files and messages.
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
    """Keeps the loss of every step, and what the step saw.

    Args:
        dtype: of model and images.
        nudge: change the stem's weights in the last bit, first of all.
    """

    def __init__(
        self, dtype: torch.dtype = torch.float32, nudge: bool = False
    ) -> None:
        self.dtype, self.nudge = dtype, nudge
        self.losses: List[float] = []
        self.seen: List[Seen] = []

    def before_train(self, runner: object) -> None:
        model = runner.model.to(self.dtype)
        model.data_preprocessor.register_forward_hook(self.cast)
        weight = model.backbone.downsample_layers[0][0].weight
        if self.nudge:
            weight.data.mul_(1 + torch.finfo(weight.dtype).eps)

    def cast(self, module: object, args: tuple, data: dict) -> dict:
        return {**data, 'inputs': data['inputs'].to(self.dtype)}

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
    cfg = cli.read_config(CONFIG)
    if args.data_root is not None:
        cli.set_data_root(cfg, args.data_root)
    cli.check_data(cfg, ['train_dataloader'])
    backbone = VERSIONS[args.version].__name__
    cfg.model.backbone.type = f'mmconvnext.{backbone}'
    cfg.merge_from_dict(QUIET)
    cfg.default_hooks.checkpoint = None
    # The recipe's rate is four times that, and its loss has weights from 0.4
    # to 3: rounding grows too fast with them.
    cfg.optim_wrapper.optimizer.lr = 1e-3
    loss = dict(type='CrossEntropyLoss', use_sigmoid=False)
    cfg.model.decode_head.loss_decode = loss
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.steps)
    cfg.work_dir = str(work_dir)
    # Loggers and visualizers are kept by name for the whole process.
    cfg.experiment_name = cfg.visualizer.name = work_dir.name
    return cfg


def dtype_of(args: Namespace) -> torch.dtype:
    """Raise a ValueError for a precision that a training does not have."""
    if args.precision not in PRECISIONS:
        raise ValueError(
            f'precision of curves must be one of {tuple(PRECISIONS)}, got '
            f'{args.precision!r}'
        )
    return PRECISIONS[args.precision]


def train(args: Namespace, path: str, nudge: bool = False) -> Recorder:
    """Run the recipe on one path."""
    recorder = Recorder(dtype_of(args), nudge)
    with tempfile.TemporaryDirectory(prefix=f'{path}-') as folder:
        runner = cli.build_runner(configure(args, Path(folder)))
        runner.register_hook(recorder)
        with ops.use(path):
            runner.train()
    return recorder


def differences(losses: List[float], reference: List[float]) -> np.ndarray:
    """Relative difference of each step's loss."""
    a, b = np.array(losses), np.array(reference)
    return np.abs(a - b) / np.abs(b)


def check_alike(name: str, run: Recorder, reference: Recorder) -> None:
    """Raise a ValueError where runs differ in more than the path."""
    for step, (a, b) in enumerate(zip(run.seen, reference.seen)):
        for what in Seen._fields:
            if getattr(a, what) != getattr(b, what):
                raise ValueError(
                    f'{name} and {PLAIN} differ in more than the path: '
                    f'{what} of step {step}'
                )


def draw(runs: Dict[str, Recorder], title: str) -> Figure:
    """Draw the losses, and below how far they are from the reference's."""
    figure = Figure(figsize=(8, 6), layout='constrained')
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    for index, (name, run) in enumerate(runs.items()):
        every = max(1, len(run.losses) // 10)
        look = dict(plots.style(index), markevery=every, markersize=5)
        # Dashes, because the curves coincide.
        look['linestyle'] = ('-', '--', ':')[index]
        top.plot(run.losses, label=name, **look)
        if index:
            apart = differences(run.losses, runs[PLAIN].losses)
            bottom.plot(apart, label=name, **look)
    top.set(ylabel='loss', title=title)
    bottom.set(xlabel='step', ylabel=f'relative difference\nto {PLAIN}')
    bottom.set_yscale('log', nonpositive='mask')
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure


def curve_rows(args: Namespace) -> Iterator[Row]:
    """Losses of a short training on each path, from one seed."""
    runs: Dict[str, Recorder] = {}
    title = (
        f'UPerNet V{args.version} atto, {args.steps} steps, {args.precision}'
    )
    for name, path in RUNS.items():
        runs[name] = run = train(args, path, nudge=name == NUDGED)
        reference = runs[PLAIN]
        check_alike(name, run, reference)
        apart = differences(run.losses, reference.losses).max()
        yield dict(
            model=title,
            run=name,
            first_loss=round(run.losses[0], 5),
            last_loss=round(run.losses[-1], 5),
            largest_difference=f'{apart:.1e}',
            mean_of_last=round(float(np.mean(run.losses[-TAIL:])), 5),
        )
    if args.picture:
        plots.save(draw(runs, title), args.picture)
