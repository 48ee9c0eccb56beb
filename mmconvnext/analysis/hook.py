"""A hook that watches for feature collapse while a model trains."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Sequence

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..registry import HOOKS
from .measure import (
    WHERE,
    LayerStatistics,
    attach,
    check_where,
    choose,
    find_blocks,
)


@HOOKS.register_module()
class FeatureCollapseHook(Hook):
    """Watch for feature collapse (arXiv 2301.00808, section 4) in training.

    Every ``interval`` iterations the batch's features are measured in the
    chosen blocks, on the main process. The visualizer gets
    ``feature_distance/NAME`` and ``dead_channels/NAME``, the log one line,
    and a warning with the name of each layer that has collapsed. Under
    FCMAE only visible positions count. Other iterations cost nothing;
    gradients and random states are never touched.

    Args:
        interval: in iterations.
        layers: patterns of block names, with ``*`` and ``?``.
        where: what to measure, a key of ``WHERE``. With ``block``, drop path
            affects the measurement: the output of a dropped block is its
            input.
        min_distance: a smaller distance counts as collapse.
        max_dead: and so does a larger share of dead channels.

    Raises:
        ValueError: for an unknown ``where`` or an interval below 1; before
            training for a pattern that matches no block.
    """

    def __init__(
        self,
        interval: int = 500,
        layers: Sequence[str] = ('*stages.*',),
        where: str = 'grn',
        min_distance: float = 0.05,
        max_dead: float = 0.5,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval, self.layers = interval, list(layers)
        self.where = check_where(where)
        self.min_distance, self.max_dead = min_distance, max_dead
        self._handles: List[RemovableHandle] = []
        self._seen: Dict[str, LayerStatistics] = {}

    def before_train(self, runner: Runner) -> None:
        self._blocks(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        now = self.every_n_train_iters(runner, self.interval)
        if now and is_main_process():
            blocks = self._blocks(runner)
            self._handles = attach(blocks, self.where, self._see)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        found = {name: s.summary() for name, s in self._seen.items()}
        self._handles, self._seen = [], {}
        self._report(runner, found)

    def _blocks(self, runner: Runner) -> Dict[str, nn.Module]:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        return choose(find_blocks(model), self.layers)

    def _see(self, name: str, maps: Iterator[Tensor]) -> None:
        # Activation checkpointing runs a block twice, with equal results.
        if name not in self._seen:
            self._seen[name] = LayerStatistics()
            for batch in maps:
                self._seen[name].update(batch)

    def _report(self, runner: Runner, found: Dict[str, Dict]) -> None:
        for name in set(self._blocks(runner)) - set(found):
            runner.logger.warning(f'{name} did not run: nothing to measure')
        for name, values in found.items():
            for tag, key in (
                ('feature_distance', 'distance'),
                ('dead_channels', 'dead'),
            ):
                runner.visualizer.add_scalar(
                    f'{tag}/{name}', values[key], runner.iter + 1
                )
            if self._collapsed(values):
                runner.logger.warning(
                    f'feature collapse in {name}: {_text(values)}'
                )
        if found:
            # Without a live channel the distance is NaN, the worst case.
            name = min(found, key=lambda name: _or_zero(found[name]))
            runner.logger.info(
                f'features ({WHERE[self.where]}): smallest distance in '
                f'{name}, {_text(found[name])}'
            )

    def _collapsed(self, values: Mapping[str, float]) -> bool:
        low = values['distance'] < self.min_distance
        return low or values['dead'] > self.max_dead


def _or_zero(values: Mapping[str, float]) -> float:
    return 0.0 if values['dead'] == 1 else values['distance']


def _text(values: Mapping[str, float]) -> str:
    return (
        f'cosine distance {values["distance"]:.3f} (at most 0.5), '
        f'{values["dead"]:.1%} of the channels dead'
    )
