"""Features that a linear probe classifies are standardised, once."""

from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest
import torch
from mmengine.structures import BaseDataElement
from ranks import run_ranks
from standardize_ranks import classifier, measure_part
from torch import Tensor, nn

from mmconvnext import ImageClassifier, StandardizeHook
from mmconvnext.training.standardize import standardize

SIDE, IMAGES = 32, 24


def batches() -> List[dict]:
    images = torch.rand(IMAGES, 3, SIDE, SIDE)
    return [
        dict(inputs=list(part), data_samples=[BaseDataElement()] * len(part))
        for part in images.split(8)
    ]


def runner(model: nn.Module, data: List[dict], steps: int = 0):
    return SimpleNamespace(
        model=model, iter=steps, train_dataloader=data, world_size=1
    )


def features(model: ImageClassifier, data: List[dict]) -> Tensor:
    rows = [torch.stack(batch['inputs']) for batch in data]
    model.eval()
    with torch.no_grad():
        return model.pooled(torch.cat(rows))


def test_channels_get_mean_0_and_variance_1() -> None:
    model, data = classifier(), batches()
    before = features(model, data)
    model.train()
    StandardizeHook().before_train(runner(model, data))
    assert model.training
    after = features(model, data)
    assert after.mean(0).abs().max() < 1e-3
    spread = after.std(0, unbiased=False)
    assert (spread - 1).abs().max() < 1e-3
    # the same features in other units
    expected = (before - before.mean(0)) / before.std(0, unbiased=False)
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-3)


def test_as_many_images_are_measured_as_asked_for() -> None:
    data = batches()
    models = [classifier(), classifier()]
    models[1].load_state_dict(models[0].state_dict())
    StandardizeHook(9).before_train(runner(models[0], data))
    StandardizeHook().before_train(runner(models[1], data[:2]))
    assert models[0].norm.weight.equal(models[1].norm.weight)


def test_two_processes_measure_together(tmp_path: Path) -> None:
    model = classifier()
    rows = features(model, batches()).double()
    halves = [rows[:10].clone(), rows[10:].clone()]
    torch.save((model.state_dict(), halves), tmp_path / 'start.pth')
    run_ranks(measure_part, str(tmp_path))
    standardize(model, rows)
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth')
        for name, value in model.norm.state_dict().items():
            torch.testing.assert_close(found[name], value)


def test_a_resumed_training_has_its_norm() -> None:
    model = classifier()
    weight = model.norm.weight.clone()
    StandardizeHook().before_train(runner(model, batches(), steps=5))
    assert model.norm.weight.equal(weight)


def test_a_constant_channel_is_not_blown_up() -> None:
    model = classifier()
    with torch.no_grad():
        model.norm.weight[0] = 0
    data = batches()
    StandardizeHook().before_train(runner(model, data))
    assert features(model, data)[:, 0].abs().max() < 1e-3


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match='at least 2'):
        StandardizeHook(1)
    with pytest.raises(ValueError, match='not Linear'):
        StandardizeHook().before_train(runner(nn.Linear(1, 1), []))
    sharded = type('FullyShardedDataParallel', (nn.Module,), {})()
    with pytest.raises(ValueError, match='sharded'):
        StandardizeHook().before_train(runner(sharded, []))
