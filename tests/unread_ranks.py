"""Hosts that do not read every output, alone and in two gloo processes.

    python tests/unread_ranks.py OUT

writes to ``OUT`` the gradients of each of ``RUNS`` after two steps (the
second is where DistributedDataParallel finds what is missing). Both
processes see the same images, so the gradients are those of one alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

import tiny
import torch
import torch.distributed as dist
from backbones import MICRO, VERSIONS, randomize
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from ranks import run_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmconvnext.cli import prepare_hosts
from mmconvnext.models.convnext import ConvNeXtBlock
from mmconvnext.models.layers import LayerNorm2d

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # torch before 2.6
    fully_shard = None

Gradients = Dict[str, Optional[Tensor]]
SUBSETS = [
    subset
    for size in range(1, 5)
    for subset in itertools.combinations(range(4), size)
]
OPTIONS: Dict[str, dict] = {
    'plain': {},
    'with_cp': dict(with_cp=True),
    'hidden': dict(with_cp='hidden'),
    'frozen': dict(frozen_stages=2),
    'all frozen': dict(frozen_stages=4),
    'reversed': dict(out_indices=(3, 2, 1, 0)),
}


class Reader(nn.Module):
    """A loss of some of a backbone's outputs."""

    def __init__(self, backbone: nn.Module, read: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.read = backbone, read
        self.heads = nn.ModuleDict(
            {str(i): nn.Conv2d(backbone.dims[i], 2, 1) for i in read}
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = dict(zip(self.backbone.out_indices, self.backbone(x)))
        losses = [
            self.heads[str(i)](maps[i]).square().mean() for i in self.read
        ]
        return sum(losses)


def host(version: int, read: Sequence[int], options: str = 'plain') -> Reader:
    torch.manual_seed(0)
    backbone = VERSIONS[version](MICRO, **OPTIONS[options])
    return randomize(Reader(backbone, read)).train()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 72, generator=generator)


def step(model: nn.Module, times: int = 1) -> Gradients:
    for _ in range(times):
        model.zero_grad()
        model(images()).backward()
    return {
        name.replace('module.', '').replace('_orig_mod.', ''): param.grad
        for name, param in model.named_parameters()
    }


def _configs() -> Path:
    spec = importlib.util.find_spec('mmdet')
    return Path(spec.submodule_search_locations[0], '.mim', 'configs')


class RetinaNet(nn.Module):
    """The host's RetinaNet, whose FPN starts at the second of four maps."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        prepare_hosts()
        init_default_scope('mmdet')
        name = 'retinanet/retinanet_r50_fpn_1x_coco.py'
        model = Config.fromfile(_configs() / name).model
        model.backbone = dict(type=f'mmconvnext.{backbone}', arch=MICRO)
        model.neck.update(in_channels=MICRO['dims'], out_channels=8)
        model.bbox_head.update(in_channels=8, feat_channels=8)
        self.detector = MODELS.build(model)

    def forward(self, images: Tensor) -> Tensor:
        torch.manual_seed(2)
        data = self.detector.data_preprocessor(tiny.batch('mmdet'), True)
        losses = self.detector(**data, mode='loss')
        return sum(sum(values) for values in losses.values())


def retinanet(backbone: str) -> RetinaNet:
    torch.manual_seed(0)
    return randomize(RetinaNet(backbone)).train()


def shard(model: nn.Module, *kinds: type) -> nn.Module:
    mesh = dist.init_device_mesh('cpu', (dist.get_world_size(),))
    for module in model.modules():
        if isinstance(module, kinds):
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


WRAPPERS: Dict[str, Callable[[nn.Module], nn.Module]] = {
    'ddp': DistributedDataParallel,
    'ddp of compiled': lambda model: DistributedDataParallel(
        torch.compile(model, backend='aot_eager')
    ),
    'compiled ddp': lambda model: torch.compile(
        DistributedDataParallel(model), backend='aot_eager'
    ),
}
if fully_shard is not None:
    WRAPPERS['fsdp of blocks'] = lambda model: shard(model, ConvNeXtBlock)
    WRAPPERS['fsdp of norms'] = lambda model: shard(model, LayerNorm2d)
# wrapper, version, outputs that are read, options
RUNS = [
    *(('ddp', 2, s, 'plain') for s in SUBSETS),
    *(('ddp', 1, s, 'plain') for s in SUBSETS[-5:]),
    *(('ddp', 2, s, o) for o in OPTIONS for s in [(1, 2, 3), (0, 1)]),
    *((w, 2, s, 'plain') for w in WRAPPERS for s in [(1, 2, 3), (0, 1)]),
]


HOSTS = ('ConvNeXt', 'ConvNeXtV2')


def _main(rank: int, out: Path) -> None:
    found = {}
    for run in dict.fromkeys(RUNS):
        wrapper, version, read, options = run
        model = WRAPPERS[wrapper](host(version, read, options))
        grads = step(model, times=2)
        found[run] = {
            name: grad.full_tensor() if hasattr(grad, 'full_tensor') else grad
            for name, grad in grads.items()
        }
        torch._dynamo.reset()
    for name in HOSTS:
        found[name] = step(DistributedDataParallel(retinanet(name)), times=2)
    if rank == 0:
        torch.save(found, out)


if __name__ == '__main__':
    run_ranks(_main, Path(sys.argv[1]))
