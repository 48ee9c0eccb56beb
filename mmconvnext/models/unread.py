"""Gradients where a host does not read every output of a backbone.

A detector may read three of four maps. The norm of the fourth then has no
gradient, and DistributedDataParallel, which waits for the gradient of every
parameter, stops. The hosts' own backbones have no parameters of an output's
own, so their configs leave outputs unread freely.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from ..ops import choice
from .layers import LayerNorm2d


class _Outputs(torch.autograd.Function):
    """Maps as they are; zeros for what an unread map alone depends on.

    Inputs are ``count`` maps, then tensors: ``owners`` gives for each the
    map whose missing gradient makes that tensor's gradient zero. Autograd
    calls the backward once for all maps and leaves out the gradient of an
    unread one. The zeros of a norm's parameters are made here and not in the
    norm's own backward pass, which would multiply zero by weights and
    activations: zero times infinity is NaN.
    """

    @staticmethod
    def forward(
        ctx: Any, count: int, owners: List[int], *tensors: Tensor
    ) -> Tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        maps, owned = tensors[:count], tensors[count:]
        ctx.owned = [(i, _like(t)) for i, t in zip(owners, owned)]
        # A map that owns nothing hands the zeros on: see join.
        alone = set(range(count)) - set(owners)
        ctx.alone = {i: _like(maps[i]) for i in alone}
        # A plain view would forbid the host to change the map in place.
        return tuple(t.detach() for t in maps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple:
        unread = [grad is None for grad in grads]
        maps = [
            torch.zeros(**ctx.alone[i]) if unread[i] and i in ctx.alone else g
            for i, g in enumerate(grads)
        ]
        owned = [
            torch.zeros(**like) if unread[i] else None for i, like in ctx.owned
        ]
        return (None, None, *maps, *owned)


def _like(x: Tensor) -> Dict[str, Any]:
    return dict(size=x.shape, dtype=x.dtype, device=x.device)


def needs_joining(module: nn.Module) -> bool:
    """Whether a call wants gradients, and keeps a graph that autograd runs.

    Programs that are traced or exported keep plain operators alone.
    """
    if not torch.is_grad_enabled():
        return False
    if choice.is_compiling():
        return module.training and not choice.is_exporting()
    return choice.plain_reason(compiling=False) is None


def join(
    maps: Dict[int, Tensor], norms: Dict[int, nn.Module], last: Tensor
) -> Dict[int, Tensor]:
    """Give every parameter a gradient as soon as one of the maps has one.

    The gradient of an unread map's norm is zero. Where the deepest map is
    unread, zeros go backward through the stages, so that those beyond the
    last map that is read have theirs. All other gradients stay as they are.

    Args:
        maps: the outputs by stage, the deepest one at the end.
        norms: the norm of each. One that was wrapped by itself (FSDP) has
            whole parameters only while it runs; the zeros go through it.
        last: the deepest stage's map before its norm.

    Returns:
        The same maps.
    """
    owners: List[int] = []
    owned: List[Tensor] = []
    for i, norm in enumerate(norms[stage] for stage in maps):
        if type(norm) is LayerNorm2d:
            owners += [i, i]
            owned += [norm.weight, norm.bias]
    if len(maps) - 1 in owners:
        owners.append(len(maps) - 1)
        owned.append(last)
    joined = _Outputs.apply(len(maps), owners, *maps.values(), *owned)
    return dict(zip(maps, joined))
