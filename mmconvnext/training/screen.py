"""What people see of a run: data, model, one moving line, metrics, places."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..configs import as_list, bare_type
from .line import Line
from .quiet import files_of

NAMES = 8  # classes that the screen lists
MEASURED = 'knn/top1'  # scalar that KNNHook measures beside validation
# A metric of a kind, as 'coco/bbox_mAP_50'.
OF_KIND = re.compile(r'(?:.*/)?(\w+?)_(mAP\w*|AR\w*)$')


class ScreenHook(Hook):
    """Say what a run is, how far it is, and what it reached.

    Args:
        curves: file of the curves, named at the end; empty for none.
    """

    priority = 'LOWEST'

    def __init__(self, curves: str = '') -> None:
        self.curves = curves
        self._line: Optional[Line] = None
        self._metrics: Dict[str, float] = {}
        self._since = 0.0

    @master_only
    def before_train(self, runner: Runner) -> None:
        show([*facts(runner), *plan(runner)])
        self._line = Line(runner.max_iters, runner.iter).__enter__()

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        self._line.step(runner.iter + 1, self._words(runner))

    def _words(self, runner: Runner) -> str:
        words = [f'iteration {runner.iter + 1}/{runner.max_iters}']
        epochs = runner.max_epochs
        if by_epoch(runner):
            words.insert(0, f'epoch {runner.epoch + 1}/{epochs}')
        scalars = runner.message_hub.log_scalars
        if 'train/loss' in scalars:
            words.append(f'loss {scalars["train/loss"].mean(20):.3f}')
        name = main_metric(runner, self._metrics)
        if name:
            words.append(f'{name} {number(self._metrics[name])}')
        if MEASURED in scalars:
            words.append(f'{MEASURED} {number(scalars[MEASURED].current())}')
        return '  '.join(words)

    @master_only
    def before_val_epoch(self, runner: Runner) -> None:
        self._since = time.monotonic()

    @master_only
    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        if self._line:
            images = len(runner.val_dataloader)
            self._line.busy(f'validating {batch_idx + 1}/{images}')

    @master_only
    def after_val_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        self._metrics = numbers(metrics or {})
        if not self._line:
            return
        self._line.pause(time.monotonic() - self._since)
        place = f'iteration {runner.iter}'
        if by_epoch(runner):
            place = f'epoch {runner.epoch}'
        # A detector's host measures nothing where no object is found.
        words = brief(self._metrics) or 'no metric has a value'
        self._line.say(f'{place}: {words}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        self._close()
        scalars = runner.message_hub.log_scalars
        if MEASURED in scalars:
            self._metrics[MEASURED] = scalars[MEASURED].current()
        if self._metrics:
            show(['', *table(self._metrics)])
        show(['', *places(runner, self.curves)])

    @master_only
    def before_test(self, runner: Runner) -> None:
        show(facts(runner, 'test'))
        self._line = Line(len(runner.test_dataloader)).__enter__()

    @master_only
    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        batches = len(runner.test_dataloader)
        words = f'testing {batch_idx + 1}/{batches}'
        self._line.step(batch_idx + 1, words)

    @master_only
    def after_test_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        self._close()

    @master_only
    def after_run(self, runner: Runner) -> None:
        self._close()

    def _close(self) -> None:
        if self._line:
            self._line.__exit__()
            self._line = None


def show(lines: Sequence[str]) -> None:
    print(*lines, sep='\n', flush=True)


def by_epoch(runner: Runner) -> bool:
    """Whether the length of a training is said in epochs."""
    return 'Epoch' in type(runner.train_loop).__name__


def facts(runner: Runner, mode: str = 'train') -> List[str]:
    """Say what data, model and weights a run has."""
    model = bare(runner.model)
    data = f'data      {data_words(runner, mode)}'
    exported = getattr(model, 'words', None)
    if exported:  # a file in the place of a model
        return [data, f'model     {exported}']
    return [
        data,
        f'model     {model_words(model)}',
        f'weights   {weights_words(runner, mode)}',
    ]


def data_words(runner: Runner, mode: str) -> str:
    """Say how many images there are, and of which classes."""
    loader = getattr(runner, f'{mode}_dataloader')
    words = [f'{len(loader.dataset)} images to {mode}']
    if mode == 'train' and runner.val_loop is not None:
        words.append(f'{len(runner.val_dataloader.dataset)} to validate')
    meta = getattr(loader.dataset, 'metainfo', None) or {}
    classes = [str(name) for name in meta.get('classes') or ()]
    if classes:
        more = ', ...' if len(classes) > NAMES else ''
        listed = ', '.join(classes[:NAMES])
        words.append(f'{len(classes)} classes: {listed}{more}')
    return ', '.join(words[:-1]) + ('; ' if classes else '') + words[-1]


def bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def model_words(model: nn.Module) -> str:
    """Name model and backbone, and count parameters."""
    count = sum(p.numel() for p in model.parameters()) / 1e6
    backbone = getattr(model, 'backbone', None)
    words = [type(model).__name__]
    if backbone is not None:
        words.append(f'with {type(backbone).__name__}')
        arch = getattr(backbone, 'arch', '')
        words += [arch] if isinstance(arch, str) and arch else []
    device = next(model.parameters()).device
    return f'{" ".join(words)}, {count:.1f} million parameters, on {device}'


def weights_words(runner: Runner, mode: str = 'train') -> str:
    """Say where a run starts from."""
    cfg = runner.cfg
    if cfg.get('load_from') or (mode == 'train' and runner.iter):
        path = cfg.get('load_from') or 'the latest checkpoint'
        if mode == 'train' and runner.iter:
            return f'resumed from {path} after iteration {runner.iter}'
        return str(path)
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    for init in as_list(backbone.get('init_cfg')):
        if 'Pretrained' in bare_type(init):
            return f'of the backbone {init["checkpoint"]}; random heads'
    return 'random'


def plan(runner: Runner) -> List[str]:
    """Say how a training goes, and where its files are."""
    batch = runner.train_dataloader.batch_size or getattr(
        runner.train_dataloader.batch_sampler, 'batch_size', 1
    )
    length = f'{runner.max_iters} iterations'
    if by_epoch(runner):
        length = f'{runner.max_epochs} epochs, {length}'
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    words = [f'{length} of {batch} images']
    if optimizer is not None:
        words.append(f'{type(optimizer).__name__} at {peak_rate(runner):g}')
    words.append(precision(runner.optim_wrapper))
    rows = [f'schedule  {", ".join(words)}', f'work dir  {runner.work_dir}']
    logs = files_of(runner.logger)
    return rows + [f'log       {path}' for path in logs]


def peak_rate(runner: Runner) -> float:
    """Return the learning rate that schedules are shares of."""
    group = runner.optim_wrapper.optimizer.param_groups[0]
    return float(group.get('initial_lr', group['lr']))


def precision(wrapper: Any) -> str:
    if 'Amp' not in type(wrapper).__name__:
        return 'float32'
    kind = getattr(wrapper, 'cast_dtype', None)
    return f'mixed precision {kind or "float16"}'.replace('torch.', '')


def numbers(metrics: Mapping[str, Any]) -> Dict[str, float]:
    """Keep the metrics that are numbers."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) or getattr(value, 'ndim', 1) == 0
    }


def main_metric(runner: Runner, metrics: Mapping[str, float]) -> str:
    """Return the metric that a run is judged by, '' before there is any."""
    for hook in runner.hooks:
        for name in as_list(getattr(hook, 'save_best', None)):
            if name in metrics:
                return name
    return next(iter(metrics), '')


def number(value: float) -> str:
    """Write a metric; COCO's -1 and NaN mean that there is nothing."""
    if math.isnan(value) or value == -1:
        return '-'
    return f'{value:.3f}' if abs(value) <= 1 else f'{value:.2f}'


def brief(metrics: Mapping[str, float], most: int = 4) -> str:
    """Write the metrics that matter most in a line."""
    groups, rest = grouped(metrics)
    words = [
        f'{kind} {name} {number(value)}'
        for kind, row in groups.items()
        for name, value in list(row.items())[:1]
    ]
    words += [f'{name} {number(value)}' for name, value in rest.items()]
    return ', '.join(words[:most])


Groups = Dict[str, Dict[str, float]]


def grouped(
    metrics: Mapping[str, float],
) -> Tuple[Groups, Dict[str, float]]:
    """Part metrics that several kinds have, as bbox_mAP, from the others."""
    groups: Groups = {}
    rest = {}
    for name, value in metrics.items():
        match = OF_KIND.match(name)
        if match:
            groups.setdefault(match[1], {})[match[2]] = value
        else:
            rest[name] = value
    return groups, rest


def table(metrics: Mapping[str, float]) -> List[str]:
    """Write metrics as a table, a row for each kind."""
    groups, rest = grouped(metrics)
    lines = []
    if groups:
        columns = list(
            dict.fromkeys(c for row in groups.values() for c in row)
        )
        width = max(map(len, groups))
        cells = [f'{column:>9}' for column in columns]
        lines.append(f'{"":<{width}}{"".join(cells)}')
        for kind, row in groups.items():
            cells = [f'{number(row.get(c, math.nan)):>9}' for c in columns]
            lines.append(f'{kind:<{width}}{"".join(cells)}')
    width = max(map(len, rest), default=0)
    return lines + [f'{n:<{width}}  {number(v)}' for n, v in rest.items()]


def places(runner: Runner, curves: str) -> List[str]:
    """Say where checkpoints and curves are; the log is named before."""
    found = {}
    last = Path(runner.work_dir, 'last_checkpoint')
    if last.is_file():
        found['checkpoint'] = last.read_text(encoding='utf-8').strip()
    best = runner.message_hub.runtime_info.get('best_ckpt')
    if best:
        found['the best'] = best
    if curves and Path(curves).is_file():
        found['curves'] = curves
    return [f'{name:<11} {path}' for name, path in found.items()]
