"""A hook that measures by k nearest neighbours while a model trains."""

from __future__ import annotations

from typing import Any, Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..registry import HOOKS
from .class_images import Settings, check, open_data
from .knn import find_backbone, measure


@HOOKS.register_module()
class KNNHook(Hook):
    """Log the accuracy of k nearest neighbours during a (pre-)training.

    ``knn/top1`` and ``knn/top5``, in percent, of the backbone as it is,
    without a mask: what :mod:`.knn` computes of a checkpoint. They go to the
    log, to the visualizer, and to the line on the screen. The loss does not
    say what features are worth; this does, on any labelled folder.

    It runs on the first process; the others go on and wait for it in their
    next step, with NCCL for 10 minutes unless ``dist_cfg`` has another
    timeout: let ``number`` keep a large data set short. Weights, modes,
    gradients and random states are as without it.

    Args:
        data_root, train, val: labelled images, as of
            :class:`.class_images.Settings`.
        interval: epochs between two measurements, iterations unless
            ``by_epoch``; the last one is always measured.
        k: number of neighbours.
        by_epoch: what ``interval`` counts.
        temperature, size, crop_ratio, number, batch_size, num_workers: as
            of :class:`.class_images.Settings`.

    Raises:
        ValueError: for an option out of range; before training for classes,
            images or a model that it cannot measure.
        FileNotFoundError: before training, for missing images.
    """

    def __init__(
        self,
        data_root: str,
        train: str = 'train',
        val: str = 'val',
        interval: int = 20,
        k: int = 20,
        by_epoch: bool = True,
        temperature: float = 0.07,
        size: int = 224,
        crop_ratio: Optional[float] = 0.875,
        number: Optional[int] = None,
        batch_size: int = 64,
        num_workers: int = 2,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval, self.by_epoch = interval, by_epoch
        self.settings = Settings(
            data_root,
            train,
            val,
            (k,),
            temperature,
            size,
            crop_ratio,
            number,
            batch_size,
            num_workers,
        )
        check(self.settings)

    def before_train(self, runner: Runner) -> None:
        if 'FullyShard' in type(runner.model).__name__:
            raise ValueError(
                'KNNHook computes on the first process alone, which has not '
                'the whole of a sharded model; measure checkpoints with '
                'tools/knn.py'
            )
        model = _bare(runner)
        backbone = find_backbone(model)
        if backbone.in_channels != 3:
            raise ValueError(
                f'KNNHook reads RGB images, the backbone takes '
                f'{backbone.in_channels} channels'
            )
        preprocessor = getattr(model, 'data_preprocessor', None)
        for name in ('mean', 'std'):
            values = getattr(preprocessor, name, None)
            if values is not None:
                values = tuple(values.flatten().tolist())
                self.settings = self.settings._replace(**{name: values})
        self._parts = open_data(self.settings)

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and (
            self.every_n_epochs(runner, self.interval)
            or self.is_last_train_epoch(runner)
        ):
            self._measure(runner, runner.epoch + 1)

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        if not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval)
            or self.is_last_train_iter(runner)
        ):
            self._measure(runner, runner.iter + 1)

    def _measure(self, runner: Runner, step: int) -> None:
        backbone = find_backbone(_bare(runner))
        result = measure(backbone, self._parts, self.settings)
        (values,) = result.accuracy.values()
        scalars = {f'knn/{name}': value for name, value in values.items()}
        for name, value in scalars.items():
            runner.message_hub.update_scalar(name, value)
        runner.visualizer.add_scalars(scalars, step=step)
        words = ', '.join(f'{k}: {v:.2f}' for k, v in scalars.items())
        unit = 'epoch' if self.by_epoch else 'iteration'
        runner.logger.info(
            f'{words} after {unit} {step} ({result.images[0]} images vote on '
            f'{result.images[1]}, {self.settings.k[0]} neighbours)'
        )
        for path, reason in result.broken.items():
            runner.logger.warning(f'left out of knn: {path}: {reason}')


def _bare(runner: Runner) -> nn.Module:
    model = runner.model
    return model.module if is_model_wrapper(model) else model
