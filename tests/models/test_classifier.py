"""The classifier equals the libraries', and loads and writes their files."""

from __future__ import annotations

from typing import Any, Dict

import pytest
import torch
import torch.nn.functional as F
from checkpoints import (
    ARCH,
    DEPTHS,
    DIMS,
    assert_close,
    backbone,
    randomise,
    same,
    save,
    snapshot,
    spell,
    wrap,
)
from imports import import_zoo
from mmengine.structures import BaseDataElement
from torch import nn

from mmconvnext import ImageClassifier
from mmconvnext.checkpoint import (
    FORMATS,
    CheckpointError,
    detect,
    export,
    export_with_account,
    load,
    parity,
)

CLASSES = 7
NAMES = {1: 'ConvNeXt', 2: 'ConvNeXtV2'}
HEADED = ('official', 'official_finetune', 'timm', 'transformers')


def classifier(version: int, **kwargs: Any) -> ImageClassifier:
    arch = {'arch': ARCH, **kwargs.pop('backbone', {})}
    row = dict(type=f'mmconvnext.{NAMES[version]}', **arch)
    options = {'num_classes': CLASSES, **kwargs}
    return ImageClassifier(row, **options).eval()


def filled(version: int, state: Any, **options: Any) -> ImageClassifier:
    cfg = dict(type='Pretrained', checkpoint=state, **options)
    model = classifier(version, init_cfg=cfg)
    model.init_weights()
    return model


def samples(labels: torch.Tensor) -> list:
    made = [BaseDataElement() for _ in labels]
    for sample, label in zip(made, labels):
        sample.gt_label = label
    return made


def timm_model(version: int, **kwargs: Any) -> nn.Module:
    timm = import_zoo('timm.models.convnext')
    options = dict(depths=DEPTHS, dims=DIMS, num_classes=CLASSES)
    options.update(
        use_grn=version == 2, ls_init_value=None if version == 2 else 1.0
    )
    return randomise(timm.ConvNeXt(**{**options, **kwargs}))


def hf_model(version: int) -> nn.Module:
    library = import_zoo('transformers')
    stem = {1: 'ConvNext', 2: 'ConvNextV2'}[version]
    config = getattr(library, f'{stem}Config')(
        depths=list(DEPTHS), hidden_sizes=list(DIMS), num_labels=CLASSES
    )
    kind = getattr(library, f'{stem}ForImageClassification')
    return randomise(kind(config))


def tv_model(version: int) -> nn.Module:
    tv = import_zoo('torchvision.models.convnext')
    rows = [
        tv.CNBlockConfig(dim, out, depth)
        for dim, out, depth in zip(DIMS, (*DIMS[1:], None), DEPTHS)
    ]
    return randomise(tv.ConvNeXt(rows, num_classes=CLASSES))


LIBRARIES = {
    'timm V1': (timm_model, 1),
    'timm V2': (timm_model, 2),
    'transformers V1': (hf_model, 1),
    'transformers V2': (hf_model, 2),
    'torchvision': (tv_model, 1),
}


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, 3, 64, 96)


@pytest.mark.parametrize('case', LIBRARIES)
@torch.no_grad()
def test_logits_equal_the_library(case: str, image: torch.Tensor) -> None:
    build, version = LIBRARIES[case]
    other = build(version)
    expected = other(image)
    expected = getattr(expected, 'logits', expected)
    assert_close([filled(version, other.state_dict())(image)], [expected])


@pytest.mark.parametrize('name', ('timm', 'transformers'))
@pytest.mark.parametrize('version', (1, 2))
@torch.no_grad()
def test_library_loads_the_export(
    name: str, version: int, image: torch.Tensor
) -> None:
    source = randomise(classifier(version))
    build = {'timm': timm_model, 'transformers': hf_model}[name]
    model = build(version)
    state, account = export_with_account(source, name)
    model.load_state_dict(state, strict=True)
    logits = model(image)
    assert_close([source(image)], [getattr(logits, 'logits', logits)])
    parity.check(source.backbone, account.found, state, name)


@pytest.mark.parametrize('version', (1, 2))
def test_a_training_step_equals_timm(
    version: int, image: torch.Tensor
) -> None:
    """SGD, whose step is the gradient: AdamW's first step hides its size."""
    other = timm_model(version)
    ours = filled(version, other.state_dict())
    soft = torch.randn(3, CLASSES).softmax(1)
    loss = ours(image, samples(soft), mode='loss')['loss']
    theirs = -(soft * F.log_softmax(other(image), 1)).sum(1).mean()
    assert_close([loss.detach()], [theirs.detach()])
    before = snapshot(ours)
    for model, value in ((ours, loss), (other, theirs)):
        value.backward()
        torch.optim.SGD(model.parameters(), lr=0.01).step()
    after, goal = export(ours, 'timm'), other.state_dict()
    assert after.keys() == goal.keys()
    assert not any(
        torch.equal(before[k], v) for k, v in ours.named_parameters()
    )
    for key, value in goal.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)


def headed(name: str, version: int) -> Dict:
    """Write a whole classifier as each format has it, by hand."""
    model = randomise(backbone(version, out_indices=(3,)))
    names = {
        'official': ('norm', 'head'),
        'timm': ('head.norm', 'head.fc'),
        'transformers': ('convnext.layernorm', 'classifier'),
        'torchvision': ('classifier.0', 'classifier.2'),
        'mmpretrain': ('backbone.norm3', 'head.fc'),
    }
    lone = {'transformers': 'convnext.', 'mmpretrain': 'backbone.'}
    state = spell(model, name)
    state = {k: v for k, v in state.items() if 'norm3' not in k}
    state = {k: v for k, v in state.items() if 'hidden_states' not in k}
    state = wrap(state, lone.get(name, '')) if name in lone else state
    norm, head = names[name]
    state[f'{norm}.weight'] = torch.randn(32)
    state[f'{norm}.bias'] = torch.randn(32)
    state[f'{head}.weight'] = torch.randn(CLASSES, 32)
    state[f'{head}.bias'] = torch.randn(CLASSES)
    return state


HEADS = ('official', 'timm', 'transformers', 'torchvision', 'mmpretrain')
CASES = [
    (name, version)
    for name in HEADS
    for version in ((1,) if name == 'torchvision' else (1, 2))
]


@pytest.mark.parametrize(('name', 'version'), CASES)
def test_every_format_loads_with_norm_and_head(
    name: str, version: int
) -> None:
    assert name in FORMATS
    state = headed(name, version)
    model = filled(version, state)
    parts = [model.norm.weight, model.norm.bias]
    parts += [model.head.weight, model.head.bias]
    for got, value in zip(parts, list(state.values())[-4:]):
        assert torch.equal(got, value)
    bare = backbone(version, out_indices=(3,))
    load(bare, state)
    assert same(
        {k: v for k, v in bare.state_dict().items() if 'norm3' not in k},
        model.backbone.state_dict(),
    )


@pytest.mark.parametrize('name', HEADED)
@pytest.mark.parametrize(('source', 'version'), CASES)
def test_exports_have_the_head(source: str, name: str, version: int) -> None:
    state = headed(source, version)
    written, account = export_with_account(state, name)
    assert set(account.loaded) == set(written)
    assert set(account.loaded.values()) == set(state)
    assert not account.dropped
    once, twice = filled(version, state), filled(version, written)
    assert same(once.state_dict(), twice.state_dict())


def test_own_checkpoint_is_a_classifier(tmp_path: Any) -> None:
    """As mmengine saves it: whole again, and a backbone for dense models."""
    model = randomise(classifier(2))
    path = save(tmp_path, {'meta': {}, 'state_dict': model.state_dict()})
    assert same(filled(2, path).state_dict(), model.state_dict())
    found = detect(torch.load(path))
    assert not found.pretrain_only and found.prefix == 'state_dict.backbone.'
    dense = backbone(2)
    account = load(dense, path)
    assert set(account.absent) == {
        f'norm{i}.{p}' for i in range(4) for p in ('weight', 'bias')
    }
    assert 'state_dict.norm.weight' in account.dropped


def pre_logits() -> Dict:
    state = headed('timm', 1)
    state['head.pre_logits.fc.weight'] = torch.randn(12, 32)
    state['head.pre_logits.fc.bias'] = torch.randn(12)
    return state


def norm_first() -> Dict:
    return {
        key.replace('head.norm', 'norm_pre'): value
        for key, value in headed('timm', 1).items()
    }


def without(*names: str) -> Dict:
    state = headed('official', 1)
    return {k: v for k, v in state.items() if not k.startswith(names)}


REFUSED = {
    'no classifier': (lambda: without('norm.', 'head.'), 'no last norm'),
    'no head': (lambda: without('head.'), 'no head'),
    'half a head': (lambda: without('head.bias'), 'missing: head.bias'),
    'hidden layer': (pre_logits, 'hidden layer'),
    'norm before pooling': (norm_first, 'norm_pre'),
    'other classes': (
        lambda: {
            **headed('official', 1),
            'head.weight': torch.randn(9, 32),
            'head.bias': torch.randn(9),
        },
        '9 classes, the model 7; head=False',
    ),
    'other width': (
        lambda: {**headed('official', 1), 'head.weight': torch.randn(7, 31)},
        'linear head over 32',
    ),
    'not finite': (
        lambda: {
            **headed('official', 1),
            'head.bias': torch.full((7,), torch.inf),
        },
        'head.bias contains',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused_with_the_model_as_it_was(case: str) -> None:
    make, text = REFUSED[case]
    model = classifier(1, init_cfg=dict(type='Pretrained', checkpoint=make()))
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=text):
        model.init_weights()
    assert same(before, model.state_dict())


def test_other_classes_keep_the_initial_head() -> None:
    state = headed('official', 2)
    state['head.weight'], state['head.bias'] = torch.ones(9, 32), torch.ones(9)
    model = filled(2, state, head=False)
    assert torch.equal(model.norm.weight, state['norm.weight'])
    assert 0 < model.head.weight.abs().max() < 1e-3
    assert not model.head.bias.any()


@torch.no_grad()
def test_loss_smooths_and_takes_both_kinds(image: torch.Tensor) -> None:
    model = randomise(classifier(2, label_smoothing=0.1))
    labels = torch.tensor([0, 6, 3])
    hard = F.one_hot(labels, CLASSES).float()
    smooth = 0.9 * hard + 0.1 / CLASSES
    expected = -(smooth * model(image).log_softmax(1)).sum(1).mean()
    for given in (labels, hard):
        loss = model(image, samples(given), mode='loss')['loss']
        torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_predict_adds_scores_and_label(image: torch.Tensor) -> None:
    model = randomise(classifier(1))
    given = samples(torch.tensor([1, 2, 3]))
    for made in (
        model(image, given, 'predict'),
        model(image, None, 'predict'),
    ):
        scores = torch.stack([sample.pred_scores for sample in made])
        torch.testing.assert_close(scores, model(image).softmax(1))
        labels = [int(sample.pred_label) for sample in made]
        assert labels == scores.argmax(1).tolist()
    assert given[2].gt_label == 3


@pytest.mark.parametrize(
    ('labels', 'text'),
    [
        (torch.tensor([0, 1, 7]), r'in \[0, 7\)'),
        (torch.tensor([0, 1, -1]), r'in \[0, 7\)'),
        (torch.rand(3, 6), '7 probabilities'),
        (torch.rand(3), '7 probabilities'),
    ],
)
def test_wrong_labels_are_refused(
    labels: torch.Tensor, text: str, image: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=text):
        classifier(1)(image, samples(labels), mode='loss')


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_classes=0), 'num_classes'),
        (dict(label_smoothing=1.0), 'label_smoothing'),
        (dict(backbone=dict(out_indices=(2, 3))), 'out_indices'),
    ],
)
def test_options_out_of_range(options: Dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        classifier(2, **options)
    with pytest.raises(ValueError, match='mode'):
        classifier(2)(torch.zeros(1, 3, 32, 32), mode='features')
