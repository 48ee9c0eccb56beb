"""Whether a written checkpoint computes what its source does.

The source is built as our backbone; what was written as the model of its
own library, where that is timm or transformers.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch
from torch import Tensor, nn

from ..archs import ARCHS
from .detect import Found
from .formats import EXPORTS
from .load import build
from .sources import CheckpointError, need

TOLERANCE = 2e-5  # of float32 through the deepest published backbone
Features = Callable[[Tensor], List[Tensor]]


def stage_features(model: Any, image: Tensor) -> List[Tensor]:
    features = []
    for down, stage in zip(model.downsample_layers, model.stages):
        image = stage(down(image))
        features.append(image)
    return features


def build_ours(found: Found, state: Dict[str, Tensor]) -> Features:
    model = build(state)
    return lambda image: stage_features(model, image)


def build_timm(found: Found, state: Dict[str, Tensor]) -> Features:
    arch, bias = ARCHS.get(found.arch), state.get('head.fc.bias')
    model = (
        need('timm.models.convnext', '--check')
        .ConvNeXt(
            depths=found.depths,
            dims=found.dims,
            use_grn=found.version == 2,
            ls_init_value=None if found.version == 2 else 1e-6,
            conv_mlp=found.arch in EXPORTS['timm'].conv_mlp,
            norm_eps=arch.eps if arch else 1e-6,
            num_classes=0 if bias is None else len(bias),
        )
        .eval()
    )
    model.load_state_dict(state, strict=True)
    return lambda image: model.forward_intermediates(
        image, intermediates_only=True
    )


def build_transformers(found: Found, state: Dict[str, Tensor]) -> Features:
    library = need('transformers', '--check')
    name = {1: 'ConvNext', 2: 'ConvNextV2'}[found.version]
    dense = any(key.startswith('hidden_states_norms') for key in state)
    bias = state.get('classifier.bias')
    stages = [f'stage{n}' for n in range(1, 5)]
    config = getattr(library, name + 'Config')(
        depths=list(found.depths),
        hidden_sizes=list(found.dims),
        **(dict(out_features=stages) if dense else {}),
        **({} if bias is None else dict(num_labels=len(bias))),
    )
    kind = name + ('Backbone' if dense else 'Model')
    kind = kind if bias is None else name + 'ForImageClassification'
    model = getattr(library, kind)(config).eval()
    # A file of pre-training has no last norm, which no feature shows.
    missing = set(model.state_dict()) - set(state)
    model.load_state_dict(state, strict=missing != LAST_NORM)
    return lambda image: list(
        model(image, output_hidden_states=True).hidden_states[1:]
    )


LAST_NORM = {'layernorm.weight', 'layernorm.bias'}
BUILDERS: Dict[str, Callable[[Found, Dict[str, Tensor]], Features]] = {
    'official': build_ours,
    'official_finetune': build_ours,
    'native': build_ours,
    'mmpretrain': build_ours,
    'timm': build_timm,
    'transformers': build_transformers,
}


@torch.no_grad()
def check(
    source: nn.Module, found: Found, state: Dict[str, Tensor], to: str
) -> str:
    """Compare our features of IN with the library's of OUT, 64 x 96 pixels.

    Raises:
        CheckpointError: where they differ by more than ``TOLERANCE``.
    """
    image = torch.randn(1, 3, 64, 96)
    expected = stage_features(source, image)
    got = BUILDERS[to](found, state)(image)
    errors = [
        ((a - b).abs().max() / b.abs().max()).item()
        for a, b in zip(got, expected)
    ]
    if not len(got) == len(expected) or not max(errors) <= TOLERANCE:
        raise CheckpointError(f'features differ by {max(errors):.1e}')
    by = 'our loader' if BUILDERS[to] is build_ours else f'{to} itself'
    return f'features equal within {max(errors):.1e}, by {by}'
