"""The hook that watches feature collapse, in real training."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import Dataset

from mmconvnext import ConvNeXtV2
from mmconvnext.analysis.measure import attach, features, find_blocks, measure
from mmconvnext.pretrain.visible_patches import VisiblePatches

ARCH = dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])


class Images(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, 64, 64, generator=generator))


class Trained(BaseModel):
    """A backbone with a loss, random in training, masked if asked."""

    def __init__(self, with_cp: bool, masked: bool = False) -> None:
        super().__init__()
        self.backbone = ConvNeXtV2(ARCH, drop_path_rate=0.5, with_cp=with_cp)
        self.masked = masked

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict:
        x, patches = torch.stack(tuple(inputs)), None
        if self.masked:
            patches = VisiblePatches(torch.rand(len(x), 2, 2) < 0.5)
            x = patches.gather(x)
        out = self.backbone(x, patches)
        return dict(loss=sum(o.square().mean() for o in out))


class CpuAmp(OptimWrapper):
    """mmengine's class refuses a CPU; autocast does not."""

    def optim_context(self, model: BaseModel) -> torch.autocast:
        return torch.autocast('cpu', torch.bfloat16)


def train(
    folder: Path, hooks: list, model: BaseModel, amp: bool = False
) -> Runner:
    kind = CpuAmp if amp else OptimWrapper
    wrapper = kind(torch.optim.SGD(model.parameters(), lr=0.1))
    runner = Runner(
        model,
        str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper,
        default_hooks=dict(checkpoint=None),
        custom_hooks=hooks,
        # mmengine keeps one visualizer per name.
        experiment_name=str(folder).replace('/', '_'),
        log_level='INFO',
        randomness=dict(seed=0),
    )
    runner.train()
    return runner


def scalars(folder: Path) -> dict:
    """step -> tag -> value of what the visualizer wrote."""
    found = {}
    for file in folder.rglob('scalars.json'):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row.pop('step', None), {}).update(row)
    return found


HOOK = dict(type='mmconvnext.FeatureCollapseHook', interval=2)


@pytest.mark.parametrize('masked', [False, True], ids=['whole', 'masked'])
@pytest.mark.parametrize('with_cp', [False, True], ids=['plain', 'with_cp'])
@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bfloat16'])
def test_hook_logs_and_leaves_training_as_it_was(
    tmp_path: Path, with_cp: bool, masked: bool, amp: bool
) -> None:
    weights, states = [], []
    for name, hooks in (('without', []), ('with', [HOOK])):
        torch.manual_seed(0)
        model = Trained(with_cp, masked)
        start = model.state_dict()['backbone.norm3.bias'].clone()
        train(tmp_path / name, hooks, model, amp)
        weights.append(model.state_dict())
        states.append(torch.get_rng_state())
        assert not torch.equal(start, weights[-1]['backbone.norm3.bias'])
    assert torch.equal(*states)
    for key in weights[0]:
        assert torch.equal(weights[0][key], weights[1][key]), key
    found = scalars(tmp_path / 'with')
    tags = {
        f'{tag}/backbone.stages.{name}'
        for tag in ('feature_distance', 'dead_channels')
        for name in ('0.0', '1.0', '2.0', '2.1', '3.0')
    }
    logged = {k: set(v) & tags for k, v in found.items() if set(v) & tags}
    assert logged == {2: tags, 4: tags}
    assert all(0 <= found[2][t] <= 0.5 for t in tags if 'distance' in t)


def test_hook_measures_what_the_block_saw(tmp_path: Path) -> None:
    model = Trained(False)
    probe = []
    block = model.backbone.stages[2][1]
    block.register_forward_pre_hook(
        lambda module, args: probe.append([*features(module, 'grn', args[0])])
    )
    hook = dict(HOOK, layers=['*.2.1'])
    train(tmp_path, [hook], model)
    found = scalars(tmp_path)[2]
    expected = measure(probe[1][0]).distance.mean().item()
    tag = 'feature_distance/backbone.stages.2.1'
    assert found[tag] == pytest.approx(expected, rel=1e-6)
    assert 'feature_distance/backbone.stages.2.0' not in found


def test_hook_measures_the_first_forward(tmp_path: Path) -> None:
    class Twice(Trained):
        def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict:
            loss = super().forward(inputs, mode)['loss']
            same = [image * 0 for image in inputs]
            return dict(loss=loss + super().forward(same, mode)['loss'])

    found = []
    for name, kind in (('once', Trained), ('twice', Twice)):
        torch.manual_seed(0)
        model = kind(False)
        folder = tmp_path / name
        train(folder, [dict(HOOK, interval=1, layers=['*.0.0'])], model)
        found.append(scalars(folder)[1])
    tag = 'feature_distance/backbone.stages.0.0'
    assert found[0][tag] == found[1][tag]


def test_hook_is_absent_on_other_iterations(
    tmp_path: Path, monkeypatch
) -> None:
    from mmconvnext.analysis import hook

    calls = []

    def counted(*args):
        calls.append(len(find_blocks(model)))
        return attach(*args)

    monkeypatch.setattr(hook, 'attach', counted)
    model = Trained(False)
    left = []
    model.backbone.stages[0].register_forward_pre_hook(
        lambda *_: left.append(len(block._forward_hooks))
    )
    block = model.backbone.stages[0][0]
    model.backbone.downsample_layers[0].register_forward_pre_hook(
        lambda *_: left.append(len(block._forward_hooks))
    )
    train(tmp_path, [HOOK], model)
    assert calls == [5, 5]
    assert left == [0, 1, 0, 1]
    assert not block._forward_hooks


def collapse_stage(model: Trained) -> None:
    """Make all channels of the expansion of stage 1 the same positive map."""
    block = model.backbone.stages[1][0]
    with torch.no_grad():
        block.pwconv1.weight.copy_(block.pwconv1.weight[:1].clone())
        block.pwconv1.bias.fill_(1.0)


def kill_stage(model: Trained) -> None:
    """Push three quarters of the expansion of stage 1 far below zero."""
    bias = model.backbone.stages[1][0].pwconv1.bias
    with torch.no_grad():
        bias[: 3 * len(bias) // 4] = -50


@pytest.mark.parametrize(
    ('damage', 'threshold', 'text'),
    [
        (collapse_stage, 0.05, 'cosine distance 0.000'),
        (kill_stage, 0.0, '75.0% of the channels dead'),
    ],
)
def test_hook_warns_with_the_layer_name(
    tmp_path: Path, damage, threshold: float, text: str
) -> None:
    model = Trained(False)
    damage(model)
    hook = dict(HOOK, min_distance=threshold, layers=['*.1.0', '*.2.0'])
    train(tmp_path, [hook], model)
    log = next(tmp_path.rglob('*.log')).read_text()
    warnings = [line for line in log.splitlines() if 'WARNING' in line]
    warnings = [line for line in warnings if 'feature collapse in' in line]
    assert warnings and all(text in line for line in warnings)
    assert all('in backbone.stages.1.0:' in line for line in warnings)


def test_hook_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='interval must be at least 1'):
        train(tmp_path, [dict(HOOK, interval=0)], Trained(False))
    with pytest.raises(ValueError, match="where must be one of.*'grm'"):
        train(tmp_path, [dict(HOOK, where='grm')], Trained(False))
    with pytest.raises(ValueError, match="no block is called 'neck"):
        train(tmp_path, [dict(HOOK, layers=['neck*'])], Trained(False))
