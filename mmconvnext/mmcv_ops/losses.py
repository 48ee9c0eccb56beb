"""Sigmoid and softmax focal loss with their gradients."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from .sampling import in_full

TINY = torch.finfo(torch.float32).tiny


def _class_weight(weight: Tensor, target: Tensor) -> Tensor:
    return (
        in_full(weight)[target]
        if weight.numel()
        else torch.ones((), device=target.device)
    )


def _sigmoid_focal(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    alpha: float,
    terms: Callable,
) -> None:
    p = in_full(input).sigmoid()
    classes = torch.arange(p.size(1), device=p.device)
    positive, negative = terms(
        p, p.clamp(min=TINY).log(), (1 - p).clamp(min=TINY).log()
    )
    loss = torch.where(
        target[:, None] == classes, -alpha * positive, (alpha - 1) * negative
    )
    output.copy_(loss * _class_weight(weight, target).unsqueeze(-1))


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Focal loss (N, C) of logits; a target outside 0..C-1 is background."""
    _sigmoid_focal(
        input,
        target,
        weight,
        output,
        alpha,
        lambda p, log_p, log_q: ((1 - p) ** gamma * log_p, p**gamma * log_q),
    )


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes the derivative of the loss (N, C) by its logits."""
    _sigmoid_focal(
        input,
        target,
        weight,
        grad_input,
        alpha,
        lambda p, log_p, log_q: (
            (1 - p) ** gamma * (1 - p - gamma * p * log_p),
            p**gamma * (gamma * (1 - p) * log_q - p),
        ),
    )


def _softmax_focal(
    softmax: Tensor, target: Tensor, weight: Tensor, term: Callable
) -> Tensor:
    known = target >= 0
    label = target.clamp(min=0)
    p = in_full(softmax).gather(1, label[:, None])[:, 0]
    return (
        term(p, p.clamp(min=TINY).log()) * known * _class_weight(weight, label)
    )


def softmax_focal_loss_forward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Focal loss (N) of probabilities (N, C); targets below 0 give none."""
    output.copy_(
        _softmax_focal(
            softmax,
            target,
            weight,
            lambda p, log_p: -alpha * (1 - p) ** gamma * log_p,
        )
    )


def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes the derivative by the logits; ``buff`` holds that by log p."""
    buff.copy_(
        _softmax_focal(
            softmax,
            target,
            weight,
            lambda p, log_p: (
                alpha
                * (
                    gamma * (1 - p) ** (gamma - 1) * p * log_p
                    - (1 - p) ** gamma
                )
            ),
        )
    )
    classes = torch.arange(softmax.size(1), device=softmax.device)
    hot = (target[:, None] == classes).to(in_full(softmax))
    grad_input.copy_(in_full(buff)[:, None] * (hot - in_full(softmax)))
