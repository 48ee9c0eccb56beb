"""Outputs that a host does not read: zero gradients, and DDP goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from backbones import VERSIONS, both, micro
from torch import nn
from torch.nn import functional as F
from unread_ranks import (
    HOSTS,
    OPTIONS,
    RUNS,
    SUBSETS,
    Gradients,
    host,
    images,
    retinanet,
    step,
)

from mmconvnext.models import unread
from mmconvnext.ops import choice

TESTS = Path(__file__).parents[1]


def alone(monkeypatch: pytest.MonkeyPatch, *case) -> Gradients:
    """Gradients as autograd leaves them: None for what is not used."""
    with monkeypatch.context() as patch:
        patch.setattr(unread, 'needs_joining', lambda module: False)
        return step(host(*case))


def assert_zero_or_equal(found: Gradients, plain: Gradients) -> None:
    assert found.keys() == plain.keys()
    for name, grad in plain.items():
        if grad is None:
            assert not found[name].any(), name
        else:
            assert torch.equal(found[name], grad), name


CASES = [
    *((v, s, 'plain') for v in VERSIONS for s in SUBSETS),
    *((2, s, o) for o in OPTIONS for s in [(1, 2, 3), (0, 1)]),
]


@pytest.mark.parametrize('case', dict.fromkeys(CASES), ids=str)
def test_every_subset(case: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = alone(monkeypatch, *case)
    model = host(*case)
    found = step(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n for n, grad in found.items() if grad is None} == frozen
    for name in frozen:
        del plain[name], found[name]
    assert any(grad is None for grad in plain.values()) == (len(case[1]) < 4)
    assert_zero_or_equal(found, plain)


@pytest.fixture(scope='module')
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp('unread') / 'gradients.pt'
    done = subprocess.run(
        [sys.executable, str(TESTS / 'unread_ranks.py'), str(out)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(out)


@pytest.mark.slow
@pytest.mark.parametrize('run', dict.fromkeys(RUNS), ids=str)
def test_two_processes(
    run: tuple, of_two_processes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, *case = run
    plain = alone(monkeypatch, *case)
    found = of_two_processes[run]
    frozen = [
        n for n, p in host(*case).named_parameters() if not p.requires_grad
    ]
    for name in frozen:
        del plain[name], found[name]
    if wrapper == 'ddp':  # (g + g) / 2 is g
        assert_zero_or_equal(found, plain)
        return
    for name, grad in plain.items():  # compiled code sums in another order
        grad = torch.zeros_like(found[name]) if grad is None else grad
        torch.testing.assert_close(
            found[name], grad, rtol=1e-4, atol=1e-6, msg=name
        )


@pytest.mark.parametrize('backbone', HOSTS)
def test_retinanet_of_the_host(
    backbone: str, of_two_processes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads three of four maps, and so do 51 more configs of the host."""
    monkeypatch.setattr(unread, 'needs_joining', lambda module: False)
    plain = step(retinanet(backbone))
    unused = [name for name, grad in plain.items() if grad is None]
    norm = 'detector.backbone.norm0.'
    assert unused == [norm + 'weight', norm + 'bias']
    assert_zero_or_equal(of_two_processes[backbone], plain)


@both
@pytest.mark.parametrize('value', [float('inf'), float('nan')])
def test_zero_times_infinity_is_zero(cls: type, value: float) -> None:
    model = micro(cls).train()
    with torch.no_grad():
        model.norm0.weight.fill_(value)
    sum(out.square().sum() for out in model(images())[1:]).backward()
    assert not model.norm0.weight.grad.any()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@both
def test_maps_may_be_changed_in_place(cls: type) -> None:
    model = micro(cls).train()
    expected = torch.autograd.grad(
        sum(F.relu(out).sum() for out in model(images())),
        list(model.parameters()),
    )
    found = torch.autograd.grad(
        sum(F.relu(out, inplace=True).sum() for out in model(images())),
        list(model.parameters()),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@both
def test_second_derivatives(cls: type, monkeypatch) -> None:
    model = micro(cls, out_indices=(0, 1)).double().train()
    x = images().double()[:1, :, :33, :33].requires_grad_()
    results = []
    for joins in (lambda module: True, lambda module: False):
        monkeypatch.setattr(unread, 'needs_joining', joins)
        (first,) = torch.autograd.grad(
            model(x)[1].pow(3).sum(), x, create_graph=True
        )
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((first, second))
    assert results[0][1].any()
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@both
def test_inference_has_no_graph(cls: type) -> None:
    model = micro(cls)
    with torch.no_grad():
        assert not any(out.requires_grad for out in model(images()))
    model.requires_grad_(False)
    assert not any(out.requires_grad for out in model(images()))


@both
@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_traces_hold_plain_operators(cls: type, mode: str) -> None:
    model = getattr(micro(cls), mode)()
    traced = torch.jit.trace(model, images(), check_trace=False)
    assert 'PythonOp' not in str(traced.inlined_graph)
    program = torch.export.export(model.eval(), (images(),))
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [t for t in targets if 'autograd' in t]


@both
def test_transforms(cls: type) -> None:
    model = micro(cls).train()
    params = dict(model.named_parameters())

    def loss(values: dict) -> torch.Tensor:
        maps = torch.func.functional_call(model, values, images())
        return maps[1].square().sum()

    grads = torch.func.grad(loss)(params)
    assert grads['norm1.weight'].any()


def test_compiled_as_a_whole() -> None:
    expected = step(host(2, (1, 2)))
    torch._dynamo.reset()
    # torch 2.1 does not trace functions of autograd: it breaks the graph.
    model = torch.compile(
        host(2, (1, 2)),
        backend='aot_eager',
        fullgraph=choice.HAS_CUSTOM_OPS,
    )
    found = step(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_weights_that_nobody_reads_stay(capsys) -> None:
    """Without weight decay; with it they shrink, as zeros say."""
    model = host(2, (1, 2, 3))
    before = model.backbone.norm0.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    model(images()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert torch.equal(model.backbone.norm0.weight, before)
