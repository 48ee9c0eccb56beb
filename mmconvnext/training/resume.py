"""Make a resumed run end where the uninterrupted run would have ended.

mmengine restores weights, optimiser and schedules, but neither the random
states nor the data workers: a resumed run sees other augmentations and other
dropped paths. Here every random state follows from (seed, iteration), so
nothing has to be stored.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any, Iterator

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..registry import HOOKS

MAX_SEED = 2**31  # leaves room for the data worker's number


def seed_at(seed: int, step: int) -> int:
    """Mix seed and step so that neighbours get unrelated streams."""
    sequence = np.random.SeedSequence([seed, step])
    return int(sequence.generate_state(1)[0]) % MAX_SEED


class _Batches:
    """Endless batches of a loader, from its sampler's current position.

    ``mmengine`` calls ``next`` (0.10.7) or ``skip_iter`` (0.10.12) to skip
    the batches that a resumed run has seen. The sampler is already past
    them, so neither call loads anything.
    """

    def __init__(self, loader: DataLoader, skip: int) -> None:
        self._loader, self._skip = loader, skip
        self._iterator: Iterator[Any] = iter(())

    def skip_iter(self, num_iters: int) -> None:
        self._skip = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._skip > 0:
            self._skip -= 1
            return None
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self._loader)
            return next(self._iterator)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run equal to the uninterrupted one.

    Dropout and drop path are seeded by (seed, iteration) in each iteration.
    Data workers start anew from (seed, iteration) at each epoch, and in
    iteration-based loops after each checkpoint: the two places where a run
    can resume. Workers must not persist over epochs, because they would keep
    their random state.

    Sums on a GPU may still differ in the last bits between two runs.

    Raises:
        ValueError: for an iteration-based loop whose sampler cannot be
            positioned (mmengine's InfiniteSampler can).
    """

    priority = 'LOWEST'  # after the CheckpointHook

    def __init__(self) -> None:
        self._saved = False

    def before_train_epoch(self, runner: Runner) -> None:
        self._seed(runner, runner.iter)
        self._restart_data(runner, runner.iter, skip=runner.iter)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        self._seed(runner, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._saved = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        # The loop counts up after this hook; the next batch may be loaded in
        # this process, so it must find the state a resumed run finds.
        self._seed(runner, runner.iter + 1)
        if self._saved and _by_iteration(runner):
            self._restart_data(runner, runner.iter + 1, skip=0)
        self._saved = False

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self._seed(runner, runner.iter)
        self._saved = False  # the best checkpoint: no place to resume from

    def _seed(self, runner: Runner, step: int) -> None:
        seed = seed_at(runner.seed, step)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _restart_data(self, runner: Runner, step: int, skip: int) -> None:
        loader = runner.train_dataloader
        if loader.worker_init_fn is not None:
            loader.worker_init_fn = functools.partial(
                loader.worker_init_fn, seed=seed_at(runner.seed, step)
            )
        _end_workers(loader)
        if _by_iteration(runner):
            _position_sampler(loader, step)
            runner.train_loop.dataloader_iterator = _Batches(loader, skip)


def _by_iteration(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _end_workers(loader: DataLoader) -> None:
    """End persistent workers, so that the next ones start from a new seed."""
    if not loader.persistent_workers:
        return
    if not hasattr(loader, '_iterator'):  # torch has no public way
        raise ValueError(
            f'ExactResumeHook cannot end the persistent workers of torch '
            f'{torch.__version__}; set persistent_workers=False'
        )
    loader._iterator = None


def _position_sampler(loader: DataLoader, step: int) -> None:
    sampler = loader.sampler
    if not isinstance(sampler, InfiniteSampler):
        raise ValueError(
            f'ExactResumeHook needs an InfiniteSampler in an iteration-based '
            f'loop, got {type(sampler).__name__}'
        )
    batch_size = loader.batch_size or loader.batch_sampler.batch_size
    # A new one is at its beginning, in every release of mmengine.
    fresh = type(sampler)(sampler.dataset, sampler.shuffle, sampler.seed)
    sampler.indices = itertools.islice(fresh.indices, step * batch_size, None)
