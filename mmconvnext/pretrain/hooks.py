"""Hooks of a pre-training run: bad losses, bad files, pictures."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint.weights_io import write
from ..files import DamagedImageError, write_image
from ..registry import HOOKS
from .dataset import ImageFolderDataset, read_skipped


def unwrapped(runner: Runner) -> nn.Module:
    """The model itself, whatever distributes it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


class NonFiniteLossError(FloatingPointError):
    """A loss that is infinite or not a number."""


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop when the loss is infinite or NaN, before it reaches the weights.

    What led to it is saved to ``nonfinite_iter_<n>_rank_<r>.pth`` in the
    work dir: inputs (as the model saw them), the mask, the losses, learning
    rate, iteration and seed. Checkpoints stay as they are.

    Raises:
        NonFiniteLossError: from the training step; names the file and the
            checkpoint to resume from.
    """

    def before_train(self, runner: Runner) -> None:
        check = functools.partial(self._check, runner)
        self._handle = unwrapped(runner).register_forward_hook(
            check, with_kwargs=True
        )

    def after_train(self, runner: Runner) -> None:
        self._handle.remove()

    def _check(
        self,
        runner: Runner,
        model: nn.Module,
        args: tuple,
        kwargs: dict,
        output: Any,
    ) -> None:
        if not model.training or not isinstance(output, dict):
            return
        losses = [v for k, v in output.items() if 'loss' in k]
        if all(torch.isfinite(v).all() for v in losses):
            return
        path = Path(
            runner.work_dir,
            f'nonfinite_iter_{runner.iter}_rank_{runner.rank}.pth',
        )
        self._save(runner, path, args, kwargs, output)
        values = {k: float(v.detach().mean()) for k, v in output.items()}
        last = Path(runner.work_dir, 'last_checkpoint')
        good = (
            last.read_text(encoding='utf-8')
            if last.is_file()
            else 'none was saved'
        )
        raise NonFiniteLossError(
            f'loss {values} at iteration {runner.iter}; batch, mask and '
            f'learning rate are in {path}; last good checkpoint: {good}'
        )

    def _save(
        self, runner: Runner, path: Path, args: tuple, kwargs: dict, out: dict
    ) -> None:
        named = dict(zip(('inputs', 'data_samples', 'mode'), args))
        batch = {**named, **kwargs}
        state = dict(
            inputs=batch['inputs'].detach().cpu(),
            mask=(out['hidden'] > 0.5).cpu() if 'hidden' in out else None,
            losses={k: v.detach().cpu() for k, v in out.items()},
            lr=runner.optim_wrapper.get_lr(),
            iter=runner.iter,
            epoch=runner.epoch,
            seed=runner.seed,
        )
        write(state, path)


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """List the files that could not be read in the work dir, and count them.

    The data set writes them to ``skipped_images.txt``; the count is logged
    after each epoch in which it grew, and at the end.

    Raises:
        ValueError: before training, for another type of data set.
    """

    def before_train(self, runner: Runner) -> None:
        self._path = str(Path(runner.work_dir, 'skipped_images.txt'))
        self._count = len(read_skipped(self._path))
        dataset = runner.train_dataloader.dataset
        if not isinstance(dataset, ImageFolderDataset):
            raise ValueError(
                f'SkippedImagesHook lists what an ImageFolderDataset skips, '
                f'the data set is {type(dataset).__name__}'
            )
        # Workers start later and take it along.
        dataset.skipped_file = self._path

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        count = len(read_skipped(self._path))
        if count > self._count:
            self._count = count
            runner.logger.warning(
                f'{count} images could not be read and are skipped: '
                f'{self._path}'
            )

    @master_only
    def after_train(self, runner: Runner) -> None:
        runner.logger.info(f'images skipped: {len(read_skipped(self._path))}')


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Draw reconstructions of the same images and masks each time.

    ``reconstructions/epoch_<n>.png`` in the work dir, a row per image.

    Args:
        interval: epochs between two pictures; the last epoch always has one.
        number: of images, taken evenly from the training folder.
    """

    def __init__(self, interval: int = 20, number: int = 4) -> None:
        self.interval, self.number = interval, number

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        last = self.is_last_train_epoch(runner)
        if not last and not self.every_n_epochs(runner, self.interval):
            return
        from ..inference.pictures import captioned
        from .reconstruction import panels

        model = unwrapped(runner)
        rows = [
            captioned(panels(model, image, seed))
            for seed, image in enumerate(self._images(runner, model))
        ]
        width = max(row.shape[1] for row in rows)
        pads = [(0, 0), (0, 0), (0, 0)]
        for place, row in enumerate(rows):
            pads[1] = (0, width - row.shape[1])
            rows[place] = np.pad(row, pads, constant_values=255)
        name = f'reconstructions/epoch_{runner.epoch + 1}.png'
        write_image(np.vstack(rows), Path(runner.work_dir, name))

    def _images(self, runner: Runner, model: nn.Module) -> Iterator[Tensor]:
        from .reconstruction import read_image

        dataset = runner.train_dataloader.dataset
        found = 0
        for index in range(
            0, len(dataset), max(len(dataset) // self.number, 1)
        ):
            path = dataset.get_data_info(index)['img_path']
            try:
                yield read_image(path, model.patch_size)
            except DamagedImageError:
                continue  # the data set reports it
            found += 1
            if found == self.number:
                return


@HOOKS.register_module()
class LossCurveHook(Hook):
    """Draw ``loss_curve.png`` in the work dir from what was logged."""

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        from .reconstruction import draw_losses, read_losses

        work_dir = runner.work_dir
        if read_losses(work_dir)[0]:
            draw_losses(work_dir, str(Path(work_dir, 'loss_curve.png')))
