"""Layer-wise learning-rate decay: each layer's rate as a function of a name.

A layer is a group of the backbone's parameters; the deeper the layer, the
larger its rate, and the head learns at the full one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

PART = re.compile(r'(downsample_layers|stages|norm)\.?(\d+)(?:\.(\d+))?')
NO_DECAY = re.compile(
    r'(^|\.)(bias|gamma|beta|layer_scale_parameter|grn\.\w+)$'
    r'|(^|\.)[\w-]*norm\w*\.\w+$'
)


def default_num_layers(depths: Sequence[int]) -> int:
    """Count the layers of the hosts' rules: 6 for tiny, 12 for base.

    The third stage gives one layer to every three blocks, the others and
    their downsampling three more.
    """
    return 3 + math.ceil(depths[2] / 3)


class Place(NamedTuple):
    """Where a parameter is, and in which backbone.

    Args:
        part: 'downsample_layers' or 'stages'.
        stage: counts from 0.
        block: in its stage, from 0; 0 for a downsampling layer.
        depths: blocks of each stage.
        layers: of the whole backbone.
    """

    part: str
    stage: int
    block: int
    depths: Sequence[int]
    layers: int


def _layer_wise(at: Place) -> int:
    if at.part == 'downsample_layers':
        return (0, 2, 3, at.layers)[at.stage]
    return (1, 2, 3 + at.block // 3, at.layers)[at.stage]


def _stage_wise(at: Place) -> int:
    return 0 if at.part == 'downsample_layers' else at.stage + 1


def _single(at: Place) -> int:
    block = at.block if at.part == 'stages' else 0
    return sum(at.depths[: at.stage]) + 1 + block


class Rule(NamedTuple):
    """One way to divide a backbone into layers.

    Args:
        layer: of a place, from 0; the head is one past the last.
        layers: how many there are, by the depths of the stages.
        fixed: whether the option ``num_layers`` has no effect.
    """

    layer: Callable[[Place], int]
    layers: Callable[[Sequence[int]], int] = default_num_layers
    fixed: bool = False


RULES: Dict[str, Rule] = {
    'layer_wise': Rule(_layer_wise),
    'stage_wise': Rule(_stage_wise),
    'single': Rule(_single, sum, fixed=True),
    'group': Rule(_layer_wise, lambda depths: 12, fixed=True),
}
OUTPUT_NORMS = ('head', 'stage')


def get_layer_id(
    name: str,
    depths: Sequence[int],
    decay_type: str = 'layer_wise',
    num_layers: int = 0,
    output_norms: str = 'head',
) -> Tuple[int, int]:
    """Return the layer of a backbone parameter and that of the head.

    The learning rate is ``decay_rate ** (head - layer)`` times the base rate.
    ``layer_wise`` and ``stage_wise`` are the rules of MMDetection and
    MMSegmentation (after the detection code of arXiv 2201.03545),
    ``single`` gives each block its own layer (the code of arXiv 2301.00808),
    ``group`` has 12 layers whatever the depth (the classification code of
    both papers).

    Args:
        name: parameter name inside the backbone, ``stages.2.4.norm.weight``.
        depths: blocks per stage.
        decay_type: a key of ``RULES``.
        num_layers: of the hosts' rules; 0 derives it from the depths.
        output_norms: 'head' puts ``norm{i}`` into the head's layer, as the
            hosts do, 'stage' into the layer of the stage's last block.
    """
    rule = RULES[decay_type]
    layers = num_layers if num_layers and not rule.fixed else 0
    layers = layers or rule.layers(depths)
    match = PART.match(name)
    if match is None or (match[1] == 'norm' and output_norms == 'head'):
        return layers + 1, layers + 1
    part, stage, block = match[1], int(match[2]), int(match[3] or 0)
    if part == 'norm':
        part, block = 'stages', depths[stage] - 1
    return rule.layer(Place(part, stage, block, depths, layers)), layers + 1


def decays(name: str, ndim: int) -> bool:
    """Whether weight decay applies: never to GRN, biases, norms, layer scale.

    The rule goes by name, so that a GRN stored as (1, 1, 1, 4C) is exempt
    like one stored as (4C,).
    """
    return ndim > 1 and NO_DECAY.search(name) is None


class Group(NamedTuple):
    """What identifies a parameter group; sorts from the head downwards."""

    below_head: int
    layer: str
    lr_scale: float
    wd_scale: float


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning-rate decay for models with a ConvNeXt backbone.

    The backbone is found wherever it sits in the model (``backbone.``,
    ``teacher.backbone.``, ...); there may be several. Options are in
    ``optim_wrapper.paramwise_cfg``:

    - ``decay_rate``: required, in (0, 1].
    - ``decay_type``: 'layer_wise' (default), 'stage_wise' or 'single'.
    - ``num_layers``: overrides the number derived from the depths.
    - ``output_norms``: 'head' (default, as the hosts) or 'stage'.
    - ``custom_keys``: as in mmengine; ``lr_mult`` and ``decay_mult`` multiply
      what the rules give, so they never turn decay on where it is off.

    A group of the head comes first, one at the config's rate if there is
    one: mmengine logs the learning rate of the first group. The names of
    groups are unique.

    Raises:
        ValueError: for an unknown option or value, or a model without a
            ConvNeXt backbone.
    """

    OPTIONS = {
        'decay_rate': None,
        'decay_type': 'layer_wise',
        'num_layers': 0,
        'output_norms': 'head',
        'custom_keys': {},
    }

    def _validate_cfg(self) -> None:
        unknown = set(self.paramwise_cfg) - set(self.OPTIONS)
        if unknown:
            raise ValueError(
                f'paramwise_cfg has unknown options {sorted(unknown)}; '
                f'allowed: {", ".join(self.OPTIONS)}'
            )
        self.options = {**self.OPTIONS, **self.paramwise_cfg}
        rate = self.options['decay_rate']
        if rate is None or not 0 < rate <= 1:
            raise ValueError(f'decay_rate must be in (0, 1], got {rate!r}')
        allowed = {'decay_type': tuple(RULES), 'output_norms': OUTPUT_NORMS}
        for key, values in allowed.items():
            if self.options[key] not in values:
                raise ValueError(
                    f'{key} must be one of {", ".join(values)}, '
                    f'got {self.options[key]!r}'
                )
        if self.base_lr is None:
            raise ValueError('optimizer.lr must be set for layer-wise decay')

    def add_params(
        self, params: List[dict], module: nn.Module, **kwargs
    ) -> None:
        """Append the parameter groups of ``module`` to ``params``."""
        groups: Dict[Group, List[Tuple[str, nn.Parameter]]] = {}
        backbones = dict(find_backbones(module))
        if not backbones:
            raise ValueError(
                f'no ConvNeXt backbone (a module with depths, '
                f'downsample_layers and stages) in {type(module).__name__}; '
                f'layer-wise decay needs one'
            )
        for name, param in module.named_parameters():
            if param.requires_grad:
                group = self._group(name, param, backbones)
                groups.setdefault(group, []).append((name, param))
        outside = {
            group: any(_prefix(n, backbones) is None for n, _ in members)
            for group, members in groups.items()
        }
        names: Counter = Counter()
        for group in sorted(groups, key=lambda g: _log_order(g, outside[g])):
            found = self._param_group(group, groups[group])
            name = found['group_name']
            names[name] += 1
            if names[name] > 1:
                found['group_name'] = f'{name}_{names[name]}'
            params.append(found)
        print_log(format_groups(params), 'current')

    def _group(
        self, name: str, param: nn.Parameter, backbones: Dict[str, tuple]
    ) -> Group:
        prefix = _prefix(name, backbones)
        layer, below_head, scale = 'head', 0, 1.0
        if prefix is not None:
            layer, head = get_layer_id(
                name[len(prefix) :],
                backbones[prefix],
                self.options['decay_type'],
                self.options['num_layers'],
                self.options['output_norms'],
            )
            below_head = head - layer
            scale = self.options['decay_rate'] ** below_head
            layer = str(layer) if below_head else 'head'
        custom = self._custom(name)
        return Group(
            below_head,
            layer,
            scale * custom.get('lr_mult', 1.0),
            custom.get('decay_mult', 1.0) * decays(name, param.ndim),
        )

    def _custom(self, name: str) -> dict:
        keys = self.options['custom_keys']
        # mmengine's order: the longest key that occurs in the name wins.
        order = sorted(sorted(keys), key=len, reverse=True)
        return next((keys[key] for key in order if key in name), {})

    def _param_group(
        self, group: Group, members: List[Tuple[str, nn.Parameter]]
    ) -> dict:
        decay = 'decay' if group.wd_scale else 'no_decay'
        return dict(
            params=[param for _, param in members],
            param_names=[name for name, _ in members],
            group_name=f'layer_{group.layer}_{decay}',
            lr_scale=group.lr_scale,
            lr=self.base_lr * group.lr_scale,
            weight_decay=(self.base_wd or 0.0) * group.wd_scale,
        )


def _prefix(name: str, backbones: Iterable[str]) -> Optional[str]:
    """Find the prefix of the backbone that a parameter is in, if any."""
    return max(
        (p for p in backbones if name.startswith(p)), key=len, default=None
    )


def _log_order(group: Group, outside: bool) -> tuple:
    """Put the group first whose rate mmengine logs: the head's.

    Output norms are in the head's layer, but ``custom_keys`` may scale them
    with their backbone, and parts of the head by themselves.
    """
    return group.below_head, not outside, group.lr_scale != 1, group


def find_backbones(module: nn.Module) -> Iterator[Tuple[str, Sequence[int]]]:
    """Yield (name prefix, depths) of each ConvNeXt inside ``module``.

    A ConvNeXt is recognised by its parts, not its class, so those of the
    hosts work too.
    """
    for name, child in module.named_modules():
        if all(
            hasattr(child, part)
            for part in ('depths', 'downsample_layers', 'stages')
        ):
            yield f'{name}.' if name else '', tuple(child.depths)


def format_groups(params: Sequence[dict]) -> str:
    """Format the parameter groups as a table."""
    rows = [('layer', 'lr', 'weight decay', 'parameters')]
    for group in params:
        rows.append(
            (
                group['group_name'],
                f'{group["lr"]:.3g}',
                f'{group["weight_decay"]:g}',
                f'{sum(p.numel() for p in group["params"]):,}',
            )
        )
    lines = ['  '.join(f'{cell:>18}' for cell in row) for row in rows]
    return '\n'.join(['Layer-wise learning-rate decay:', *lines])
