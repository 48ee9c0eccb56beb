"""The block as the papers' code has it: what everybody starts from.

Written after arXiv 2201.03545 and 2301.00808: maps stay (N, C, H, W), the
layer norm of such maps is spelled out, the block permutes to normalise and
permutes back, GRN is four steps. Names are those of the authors' code.
"""

from __future__ import annotations

from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class GRN(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        gx = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        nx = gx / (gx.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * nx) + self.beta + x


class Block(nn.Module):
    def __init__(self, dim: int, version: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.grn = GRN(4 * dim) if version == 2 else nn.Identity()
        if version == 1:
            self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = F.gelu(self.pwconv1(self.norm(y)))
        y = self.pwconv2(self.grn(y))
        if hasattr(self, 'gamma'):
            y = self.gamma * y
        return x + y.permute(0, 3, 1, 2)


class PaperConvNeXt(nn.Module):
    def __init__(
        self, depths: Sequence[int], dims: Sequence[int], version: int
    ) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), LayerNorm(dims[0]))
        between = [
            nn.Sequential(LayerNorm(a), nn.Conv2d(a, b, 2, 2))
            for a, b in zip(dims, dims[1:])
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, version) for _ in range(depth)))
            for depth, dim in zip(depths, dims)
        )
        for i, dim in enumerate(dims):
            self.add_module(f'norm{i}', LayerNorm(dim))

    def forward(self, x: Tensor) -> List[Tensor]:
        maps = []
        pairs = zip(self.downsample_layers, self.stages)
        for i, (down, stage) in enumerate(pairs):
            x = stage(down(x))
            maps.append(getattr(self, f'norm{i}')(x))
        return maps
