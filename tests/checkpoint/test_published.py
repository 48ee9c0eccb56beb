"""Published classifiers fill ours through the runner and the predictor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from checkpoints import assert_close, same, snapshot
from classified import tiny_classifier

from mmconvnext.checkpoint import CheckpointError, PublishedHook, export, fit

FORMATS = ('official', 'official_finetune', 'timm', 'transformers')


def published(kind: str, version: int, classes: int = 3) -> tuple:
    """A random classifier, and what its authors' file would hold."""
    model = tiny_classifier(classes, version)
    state = export(model, kind)
    raw = dict(model=state) if kind.startswith('official') else state
    return model, raw


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('kind', FORMATS)
def test_a_published_file_fills_the_model(kind: str, version: int) -> None:
    source, raw = published(kind, version)
    goal = tiny_classifier(version=version)
    taken = fit.native(goal, raw, 'x.pt')
    assert fit.require_whole(goal, taken, 'x.pt') == []
    assert same(taken['state_dict'], source.state_dict())


@torch.no_grad()
def test_the_runner_reads_it_in_place() -> None:
    source, raw = published('official', 2)
    goal = tiny_classifier()
    checkpoint, runner = dict(raw), SimpleNamespace(model=goal)
    PublishedHook().after_load_checkpoint(runner, checkpoint)
    assert set(checkpoint) == {'state_dict'}
    goal.load_state_dict(checkpoint['state_dict'])
    image = torch.randn(2, 3, 64, 64)
    assert_close([goal(image)], [source(image)])


def test_ours_are_left_as_they_are() -> None:
    model = tiny_classifier()
    raw = dict(state_dict=model.state_dict(), meta={})
    assert fit.native(model, raw, 'x.pth') is raw
    bare = fit.native(model, model.state_dict(), 'x.pth')
    assert same(bare['state_dict'], model.state_dict())
    other = dict(state_dict=dict(anything=torch.ones(1)))
    assert fit.native(model.backbone, other, 'x.pth') is other


def without_head(raw: dict) -> dict:
    state = raw['model']
    return {k: v for k, v in state.items() if not k.startswith('head.')}


def broken(raw: dict) -> dict:
    raw['model']['head.bias'][0] = torch.nan
    return raw


REFUSED = {
    'no head': (2, without_head, 'x.pt does not fit .*: .*has no head'),
    'other version': (1, dict, 'x.pt does not fit .*V1'),
    'not finite': (2, broken, 'head.bias contains infinite or NaN'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    version, change, text = REFUSED[case]
    _, raw = published('official', version)
    goal = tiny_classifier()
    before = snapshot(goal)
    with pytest.raises(CheckpointError, match=text):
        fit.native(goal, change(raw), 'x.pt')
    assert same(before, goal.state_dict())


def test_heads_for_other_classes() -> None:
    """A test refuses them, training starts them anew."""
    _, raw = published('official', 2, classes=5)
    goal = tiny_classifier()
    taken = fit.native(goal, raw, 'x.pt')
    text = r'head.weight: \[5, 32\].* 5 classes, the model 3'
    with pytest.raises(CheckpointError, match=text):
        fit.require_whole(goal, taken, 'x.pt')
    assert 'start anew' in fit.require_backbone(goal, taken, 'x.pt')
