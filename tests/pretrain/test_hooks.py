"""Hooks in real runs: what a bad loss writes, and what it does not change."""

from pathlib import Path

import cv2
import masked
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmconvnext import NonFiniteLossHook, checkpoint
from mmconvnext.pretrain.hooks import NonFiniteLossError

CONFIG = Path(__file__).parents[2] / 'configs/fcmae_convnextv2_atto_camvid.py'


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A run over four small images, two iterations an epoch."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(4):
        image = rng.integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
    cfg = Config.fromfile(CONFIG)
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0)
    loader.dataset.update(data_root=str(folder), data_prefix=dict(img_path=''))
    loader.dataset.pipeline[1].scale = 64
    cfg.model.backbone.arch = masked.TINY
    cfg.model.decoder_dim = 16
    cfg.train_cfg.max_epochs = 3
    cfg.default_hooks.checkpoint.interval = 1
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = f'hooks_{tmp_path.name}'
    cfg.custom_hooks = [dict(type='mmconvnext.NonFiniteLossHook')]
    return cfg


class Poison(Hook):
    """Spoil the mask token before one iteration."""

    def __init__(self, iteration: int, value: float) -> None:
        self.iteration, self.value = iteration, value

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            runner.model.mask_token.data.fill_(self.value)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_bad_loss_stops_and_leaves_its_causes(cfg: Config, value: float):
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Poison(3, value))
    with pytest.raises(NonFiniteLossError, match='iteration 3') as caught:
        runner.train()
    work = Path(cfg.work_dir)
    path = work / 'nonfinite_iter_3_rank_0.pth'
    assert str(path) in str(caught.value)
    assert str(work / 'epoch_1.pth') in str(caught.value)
    state = checkpoint.read(path)
    assert state['inputs'].shape == (2, 3, 64, 64)
    assert state['mask'].dtype == torch.bool
    assert state['mask'].shape == (2, 2, 2)
    assert state['mask'].flatten(1).sum(1).tolist() == [3, 3]
    assert not torch.isfinite(state['losses']['loss'])
    assert state['lr']['lr'][0] > 0
    assert (state['iter'], state['epoch']) == (3, 1)
    # The bad gradients reached no weight, and no checkpoint followed.
    for name, param in runner.model.named_parameters():
        assert name == 'mask_token' or torch.isfinite(param).all(), name
    assert sorted(p.name for p in work.glob('epoch_*')) == ['epoch_1.pth']
    good = checkpoint.read(work / 'epoch_1.pth')['state_dict']
    assert all(torch.isfinite(value).all() for value in good.values())
    # With what was saved the loss is bad again.
    model = runner.model.eval()
    again = model(state['inputs'], mask=state['mask'])['loss']
    assert not torch.isfinite(again)


def test_a_good_run_leaves_nothing(cfg: Config):
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert not list(Path(cfg.work_dir).glob('nonfinite*'))
    hooks = [h for h in runner.hooks if isinstance(h, NonFiniteLossHook)]
    assert len(hooks) == 1
    assert not runner.model._forward_hooks


def test_evaluation_may_give_what_it_likes(cfg: Config):
    runner = Runner.from_cfg(cfg)
    (hook,) = [h for h in runner.hooks if isinstance(h, NonFiniteLossHook)]
    hook.before_train(runner)
    model = runner.model.eval()
    model.mask_token.data.fill_(float('nan'))
    mask = torch.tensor([[[True, False]]])
    loss = model(torch.zeros(1, 3, 32, 64), mask=mask)['loss']
    assert torch.isnan(loss)


def test_skipped_images_need_a_data_set_that_lists_them(cfg: Config):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', dataset=inner, times=2
    )
    cfg.custom_hooks = [dict(type='mmconvnext.SkippedImagesHook')]
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match='the data set is RepeatDataset'):
        runner.train()
