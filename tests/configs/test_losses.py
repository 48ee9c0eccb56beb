"""The losses that configs/README.md gives as overrides train."""

import argparse
import re
import shlex
from pathlib import Path
from typing import List

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.model import revert_sync_batchnorm
from tiny import batch, build, load, shrink

README = Path(__file__).parents[2] / 'configs' / 'README.md'


def documented() -> dict:
    """Run that block of losses; returns its names."""
    section = README.read_text('utf-8').split('## Losses')[1]
    names = {}
    exec(re.search(r'```python\n(.*?)```', section, re.S)[1], names)
    return names


BLOCK = documented()
SEG, BOX = BLOCK['losses'], BLOCK['boxes']
STEPS = 12


def train(cfg: Config) -> List[dict]:
    """Fit the tiny model to one batch; returns the losses of each step."""
    cfg = shrink(cfg)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build(cfg))
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    data = model.data_preprocessor(batch(cfg.default_scope), training=True)
    history = []
    for _ in range(STEPS):
        torch.manual_seed(1)
        total, values = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        total.backward()
        assert all(
            p.grad is not None and p.grad.isfinite().all()
            for p in model.parameters()
        )
        optimizer.step()
        history.append({k: v.item() for k, v in values.items()})
    return history


def test_every_kind_is_there() -> None:
    assert {'cross_entropy', 'dice', 'lovasz', 'focal'} <= set(SEG)
    assert any(len(row) > 1 for row in SEG.values())
    assert {'smooth_l1', 'l1', 'giou', 'diou'} <= set(BOX)


@pytest.fixture
def _focal_on_cpu(monkeypatch) -> None:
    # onedl-mmsegmentation 1.4.2, on a CPU, takes one column of the one-hot
    # target (`target[:, num_classes]`) and fails; a target that is one-hot
    # already goes around it. On a GPU there is no such step.
    from mmseg.models.losses import FocalLoss

    forward = FocalLoss.forward

    def expand(self, pred, target, *args, **kwargs):
        target = target.masked_fill(target == 255, 0)  # not ignored here
        one_hot = torch.nn.functional.one_hot(target, pred.size(1))
        return forward(self, pred, one_hot.movedim(-1, 1), *args, **kwargs)

    monkeypatch.setattr(FocalLoss, 'forward', expand)


@pytest.mark.usefixtures('_focal_on_cpu')
@pytest.mark.parametrize('name', SEG)
def test_segmentation(name: str) -> None:
    cfg = load('upernet_convnextv2_tiny_own.py')
    override = dict(model=dict(decode_head=dict(loss_decode=SEG[name])))
    cfg.merge_from_dict(override)
    assert len(cfg.model.decode_head.loss_decode) == len(SEG[name])
    history = train(cfg)
    terms = [key for key in history[0] if key.startswith('decode.loss')]
    assert len(terms) == len(SEG[name])
    for term in terms:
        assert history[-1][term] < 0.95 * history[0][term], term


@pytest.mark.parametrize('name', BOX)
def test_boxes(name: str) -> None:
    cfg = load('mask_rcnn_convnextv2_tiny_own.py')
    override = dict(model=dict(roi_head=dict(bbox_head=BOX[name])))
    cfg = Config(Config._merge_a_into_b(override, cfg._cfg_dict))
    kind = BOX[name]['loss_bbox']['type']
    assert cfg.model.roi_head.bbox_head.loss_bbox.type == kind
    history = train(cfg)
    # Which proposals are positive changes from step to step.
    losses = [step['loss_bbox'] for step in history]
    assert 0 < min(losses) < 0.95 * max(losses)
    assert history[-1]['loss'] < history[0]['loss']


# The commands that give CamVid the settings it had before.
BEFORE = re.findall(
    r'optim_wrapper\.optimizer\.lr=1e-3\s.*?hue_delta=18',
    README.read_text('utf-8'),
    re.S,
)


def test_both_commands_are_found() -> None:
    assert len(BEFORE) == 2


@pytest.mark.parametrize('options', BEFORE)
def test_the_settings_of_before(options: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='+', action=DictAction)
    args = parser.parse_args(['--options', *shlex.split(options)])
    cfg = load('upernet_convnextv2_atto_camvid.py')
    cfg.merge_from_dict(args.options)
    assert cfg.train_pipeline[2].type == 'RandomResize'
    steps = cfg.train_dataloader.dataset.pipeline
    assert steps[2].ratio_range == (0.5, 2.0)
    assert steps[5].hue_delta == 18
    loss = build(shrink(cfg)).decode_head.loss_decode
    assert type(loss).__name__ == 'CrossEntropyLoss'
    assert loss.class_weight is None
