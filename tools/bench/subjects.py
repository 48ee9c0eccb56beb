"""Whose ConvNeXt is measured: one builder each, the same weights for all.

A subject maps images to the four normalised maps. A name is
``builder[+compile]``; builders with ``-cl`` get channels-last weights and
images.
"""

from __future__ import annotations

import copy
from typing import Callable, Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint, ops

from .paper import PaperConvNeXt
from .zoo import import_zoo

VERSIONS = {1: ConvNeXt, 2: ConvNeXtV2}


def ours(version: int, arch: str, **options: object) -> nn.Module:
    """A backbone with weights that show when they are misplaced."""
    torch.manual_seed(0)
    model = VERSIONS[version](arch, **options)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if '.grn.' in name or name.endswith('.gamma'):
                param.normal_(0, 0.3)
    return model


class OnPath(nn.Module):
    """Our backbone with one path of its ops forced."""

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__()
        self.model, self.path = model, path

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        with ops.use(self.path):
            return self.model(x)


class Timm(nn.Module):
    """timm's maps have no norms; these are its class with our weights."""

    def __init__(self, model: nn.Module, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model, self.norms = model, nn.ModuleList(norms)

    def forward(self, x: Tensor) -> List[Tensor]:
        maps = self.model.forward_intermediates(x, intermediates_only=True)
        return [norm(y).contiguous() for norm, y in zip(self.norms, maps)]


class Transformers(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        return self.model(x).feature_maps


def build_timm(source: nn.Module) -> nn.Module:
    timm = import_zoo('timm')
    state = checkpoint.export(source, 'timm')
    # Small ones have 1x1 convolutions in timm.
    first = state['stages.0.blocks.0.mlp.fc1.weight']
    model = timm.models.convnext.ConvNeXt(
        depths=source.depths,
        dims=source.dims,
        use_grn=source.version == 2,
        ls_init_value=1e-6 if source.version == 1 else None,
        conv_mlp=first.ndim == 4,
        num_classes=0,
    )
    wanted = model.state_dict().keys()
    model.load_state_dict({k: v for k, v in state.items() if k in wanted})
    norms = [timm.layers.LayerNorm2d(dim) for dim in source.dims]
    for i, norm in enumerate(norms):
        norm.load_state_dict(getattr(source, f'norm{i}').state_dict())
    return Timm(model, norms)


def build_transformers(source: nn.Module) -> nn.Module:
    transformers = import_zoo('transformers')
    name = {1: 'ConvNext', 2: 'ConvNextV2'}[source.version]
    config = getattr(transformers, f'{name}Config')(
        depths=list(source.depths),
        hidden_sizes=list(source.dims),
        out_indices=[1, 2, 3, 4],
    )
    model = getattr(transformers, f'{name}Backbone')(config)
    model.load_state_dict(checkpoint.export(source, 'transformers'))
    return Transformers(model)


def build_mmpretrain(source: nn.Module) -> nn.Module:
    module = import_zoo('mmpretrain.models.backbones.convnext')
    model = module.ConvNeXt(
        dict(depths=source.depths, channels=source.dims),
        use_grn=source.version == 2,
        layer_scale_init_value=1.0 if source.version == 1 else 0.0,
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
    )
    model.load_state_dict(checkpoint.export(source, 'mmpretrain'))
    return model


def build_paper(source: nn.Module) -> nn.Module:
    model = PaperConvNeXt(source.depths, source.dims, source.version)
    model.load_state_dict(checkpoint.export(source, 'official'))
    return model


def build_ours(source: nn.Module) -> nn.Module:
    return source


def build_graphed(source: nn.Module) -> nn.Module:
    """Ours with CUDA graphs, which are for inference in eval mode."""
    model = copy.deepcopy(source).eval()
    model.cuda_graphs = True
    return model


def _on(path: str) -> Callable[[nn.Module], nn.Module]:
    def build(source: nn.Module) -> nn.Module:
        return OnPath(source, path)

    return build


BUILDERS: Dict[str, Callable[[nn.Module], nn.Module]] = {
    'ours': build_ours,
    'ours-graphs': build_graphed,
    'ours-reference': _on('reference'),
    'ours-fused': _on('fused'),
    'ours-triton': _on('triton'),
    'timm': build_timm,
    'timm-cl': build_timm,
    'transformers': build_transformers,
    'transformers-cl': build_transformers,
    'mmpretrain': build_mmpretrain,
    'mmpretrain-cl': build_mmpretrain,
    'paper': build_paper,
    'paper-cl': build_paper,
}
# channels_last helps these; mmpretrain's norms lead back to NCHW anyway.
DEFAULT = (
    'ours',
    'ours-reference',
    'timm-cl',
    'transformers-cl',
    'mmpretrain',
    'paper',
)
OURS = 'ours'


def is_compiled(name: str) -> bool:
    return name.endswith('+compile')


def build(
    names: Sequence[str], source: nn.Module
) -> Tuple[Dict[str, nn.Module], Dict[str, str]]:
    """Build subjects; those that do not import are left out by name.

    Returns:
        Subjects, and why others are missing.

    Raises:
        ValueError: for an unknown name.
    """
    built, missing = {}, {}
    for name in names:
        key = name.split('+compile')[0]
        if key not in BUILDERS:
            raise ValueError(
                f'subject must be one of {", ".join(BUILDERS)}, each with or '
                f'without +compile, got {name!r}'
            )
        try:
            model = BUILDERS[key](source)
        except ImportError as error:
            missing[name] = str(error)
            continue
        if key.endswith('-cl'):
            model = model.to(memory_format=torch.channels_last)
        built[name] = torch.compile(model) if is_compiled(name) else model
    return built, missing
