"""Focal losses are those of their definition."""

import pytest
import torch
from operators import DTYPES, close


@pytest.mark.parametrize('weighted', (False, True))
@pytest.mark.parametrize('gamma', (2.0, 1.5))
@pytest.mark.parametrize('kind', ('sigmoid', 'softmax'))
def test_focal_loss(ops, kind, gamma, weighted):
    logits = torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    background = 4 if kind == 'sigmoid' and not weighted else 3
    target = torch.tensor([0, 3, 1, 2, background, 1])
    weight = torch.rand(4, dtype=torch.double) if weighted else None
    loss = getattr(ops, f'{kind}_focal_loss')

    def run(x, reduction='none'):
        return loss(x, target, gamma, 0.25, weight, reduction)

    def both(x):
        return run(x, 'mean'), run(x, 'sum')

    hot = torch.nn.functional.one_hot(target, 5)[:, :4].bool()
    p = logits.sigmoid() if kind == 'sigmoid' else logits.softmax(1)
    each = -0.25 * (1 - p) ** gamma * p.log()
    if kind == 'sigmoid':
        wanted = torch.where(hot, each, -0.75 * p**gamma * (1 - p).log())
        wanted = wanted * (weight[target][:, None] if weighted else 1)
    else:
        wanted = each[hot] * (weight[target] if weighted else 1)
    close(run(logits), wanted)
    assert torch.autograd.gradcheck(both, logits)


@pytest.mark.parametrize('dtype', DTYPES)
def test_focal_loss_of_huge_logits_is_finite(ops, dtype):
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], dtype=dtype)
    logits.requires_grad_()
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 2]))
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.parametrize('kind', ('sigmoid', 'softmax'))
def test_focal_loss_without_samples(ops, kind):
    logits = torch.zeros(0, 4, requires_grad=True)
    if kind == 'softmax':
        logits = torch.zeros(0, 4)
    loss = getattr(ops, f'{kind}_focal_loss')
    assert loss(logits, torch.zeros(0).long(), 2.0, 0.25, None, 'sum') == 0
