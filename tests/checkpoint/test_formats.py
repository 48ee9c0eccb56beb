"""Every format loads, and is written as its own library writes it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from checkpoints import (
    ARCH,
    CASES,
    DEPTHS,
    DIMS,
    EXPORT_CASES,
    MODELS,
    assert_close,
    backbone,
    randomise,
    same,
    spell,
    stage_features,
    wrap,
)
from imports import import_zoo

from mmconvnext.checkpoint import (
    detect,
    export,
    export_with_account,
    load,
)
from mmconvnext.checkpoint.formats import EXPORTS, FORMATS, from_ours, rename

# The tables are compared with these: names read from each library.
EXAMPLES = {
    'official': {
        'stages.2.1.pwconv1.weight': 'stages.2.1.pwconv1.weight',
        'stages.2.1.grn.gamma': 'stages.2.1.grn.gamma',
        'norm.bias': 'norm.bias',
    },
    'minkowski': {
        'downsample_layers.1.1.weight': 'downsample_layers.1.1.kernel',
        'downsample_layers.1.0.bias': 'downsample_layers.1.0.ln.bias',
        'stages.2.1.dwconv.weight': 'stages.2.1.dwconv.kernel',
        'stages.2.1.norm.weight': 'stages.2.1.norm.ln.weight',
        'stages.2.1.pwconv1.weight': 'stages.2.1.pwconv1.linear.weight',
    },
    'timm': {
        'downsample_layers.0.0.weight': 'stem.0.weight',
        'downsample_layers.2.1.bias': 'stages.2.downsample.1.bias',
        'stages.2.1.dwconv.weight': 'stages.2.blocks.1.conv_dw.weight',
        'stages.2.1.pwconv2.bias': 'stages.2.blocks.1.mlp.fc2.bias',
        'stages.2.1.grn.gamma': 'stages.2.blocks.1.mlp.grn.weight',
        'stages.2.1.gamma': 'stages.2.blocks.1.gamma',
        'norm.weight': 'head.norm.weight',
    },
    'timm_features': {
        'downsample_layers.0.1.weight': 'stem_1.weight',
        'downsample_layers.2.1.bias': 'stages_2.downsample.1.bias',
        'stages.0.0.norm.bias': 'stages_0.blocks.0.norm.bias',
    },
    'transformers': {
        'downsample_layers.0.0.weight': 'embeddings.patch_embeddings.weight',
        'downsample_layers.0.1.bias': 'embeddings.layernorm.bias',
        'downsample_layers.3.0.bias': (
            'encoder.stages.3.downsampling_layer.0.bias'
        ),
        'stages.2.1.gamma': 'encoder.stages.2.layers.1.layer_scale_parameter',
        'stages.2.1.grn.beta': 'encoder.stages.2.layers.1.grn.bias',
        'stages.2.1.norm.bias': 'encoder.stages.2.layers.1.layernorm.bias',
        'norm0.weight': 'hidden_states_norms.stage1.weight',
        'norm.bias': 'layernorm.bias',
    },
    'transformers_dinov3': {
        'downsample_layers.0.1.bias': 'stages.0.downsample_layers.1.bias',
        'stages.2.1.pwconv1.bias': 'stages.2.layers.1.pointwise_conv1.bias',
        'stages.2.1.norm.bias': 'stages.2.layers.1.layer_norm.bias',
    },
    'torchvision': {
        'downsample_layers.0.0.bias': 'features.0.0.bias',
        'downsample_layers.3.1.bias': 'features.6.1.bias',
        'stages.0.0.dwconv.bias': 'features.1.0.block.0.bias',
        'stages.3.1.norm.bias': 'features.7.1.block.2.bias',
        'stages.3.1.pwconv2.weight': 'features.7.1.block.5.weight',
        'stages.3.1.gamma': 'features.7.1.layer_scale',
        'norm.weight': 'classifier.0.weight',
    },
    'mmpretrain': {
        'stages.2.1.dwconv.bias': 'stages.2.1.depthwise_conv.bias',
        'stages.2.1.pwconv2.bias': 'stages.2.1.pointwise_conv2.bias',
        'norm3.weight': 'norm3.weight',
    },
}


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96)


@pytest.mark.parametrize('name', FORMATS)
def test_names_are_those_of_each_system(name: str) -> None:
    pairs = list(FORMATS[name].names.items())
    for ours, theirs in EXAMPLES[name].items():
        assert rename(ours, pairs) == theirs
        assert rename(theirs, [(b, a) for a, b in pairs]) == ours


@pytest.mark.parametrize('name, version', CASES)
def test_every_format_loads_bit_identical(name: str, version: int) -> None:
    source, target = randomise(backbone(version)), backbone(version)
    state = spell(source, name)
    found = detect(state)
    assert (found.format, found.version) == (name, version)
    assert (found.depths, found.dims, found.arch) == (DEPTHS, DIMS, 'custom')
    account = load(target, state)
    norms = r'norm\d' if 'norm{i}.{p}' not in FORMATS[name].names else '^$'
    assert same(target.state_dict(), source.state_dict(), norms)
    assert set(account.loaded.values()) | set(account.dropped) == set(state)
    assert set(account.loaded) | set(account.absent) == set(
        target.state_dict()
    )


def test_kernels_of_minkowski_keep_their_orientation() -> None:
    source = randomise(backbone(2))
    state = spell(source, 'minkowski')
    kernel = state['downsample_layers.1.1.kernel']
    dense = source.downsample_layers[1][1].weight
    for h, w in ((0, 1), (1, 0)):
        assert torch.equal(kernel[w * 2 + h], dense[:, :, h, w].T)
    kernel = state['stages.0.0.dwconv.kernel']
    dense = source.stages[0][0].dwconv.weight
    assert torch.equal(kernel[2 * 7 + 5], dense[:, 0, 5, 2])


@pytest.mark.parametrize('shape', [(-1,), (1, -1), (1, 1, 1, -1)])
def test_grn_loads_in_any_published_shape(shape: tuple) -> None:
    source, target = randomise(backbone(2)), backbone(2)
    state = {
        key: value.reshape(shape) if '.grn.' in key else value
        for key, value in source.state_dict().items()
    }
    load(target, state)
    assert same(source.state_dict(), target.state_dict())


@pytest.mark.parametrize('name, version', EXPORT_CASES)
def test_round_trip_is_bit_identical(name: str, version: int) -> None:
    source, target = randomise(backbone(version)), backbone(version)
    state = export(source, name)
    lost = 'norm{i}.{p}' not in EXPORTS[name].names
    load(target, state, final_norm=lost)
    # timm has a place for the last norm only.
    but = r'norm[0-2]\.' if lost else '^$'
    assert same(source.state_dict(), target.state_dict(), but)
    again = export(target, name)
    assert same(state, again)


def test_grn_as_the_authors_scripts_take_it() -> None:
    """remap_checkpoint_keys adds two dimensions to whatever GRN it finds."""
    source = randomise(backbone(2))
    for name, dims in (('official', 4), ('official_finetune', 2)):
        state, account = export_with_account(source, name)
        grn = [v for k, v in state.items() if '.grn.' in k]
        assert {v.dim() for v in grn} == {dims}
        assert all(v.numel() == v.shape[-1] for v in grn)
        assert 'strict=False' in str(account)
    state, _ = export_with_account(source, 'official_finetune')
    for key, value in export(source, 'official').items():
        theirs = state[key]
        if '.grn.' in key:
            theirs = theirs.unsqueeze(0).unsqueeze(1)
        assert torch.equal(theirs, value), key
    # Only output norms need it.
    trunk = {k: v for k, v in source.state_dict().items() if k[:4] != 'norm'}
    assert 'strict' not in str(export_with_account(trunk, 'official')[1])


@pytest.mark.parametrize('name', EXPORTS)
def test_archs_of_the_table_are_written_as_timm_builds_them(name: str) -> None:
    state = export(MODELS[1]('atto'), name)
    dims = {v.dim() for k, v in state.items() if 'fc1.weight' in k}
    assert dims == ({4} if name == 'timm' else set())
    assert from_ours(EXPORTS[name], state)


def timm_case(image, version: int, **kwargs):
    timm = import_zoo('timm.models.convnext')
    scale = None if version == 2 else 1.0
    model = timm.ConvNeXt(
        depths=DEPTHS,
        dims=DIMS,
        use_grn=version == 2,
        ls_init_value=scale,
        num_classes=7,
        **kwargs,
    )
    randomise(model)
    return model.state_dict(), model.forward_intermediates(
        image, intermediates_only=True
    )


def timm_clip(image, version: int):
    state, features = timm_case(image, 1, head_hidden_size=12)
    state = wrap(state, 'module.visual.trunk.')
    state['module.visual.head.proj.weight'] = torch.zeros(3)
    state['module.text.positional_embedding'] = torch.zeros(3)
    return state, features


def timm_features(image, version: int):
    timm = import_zoo('timm')
    name = {1: 'convnext_atto', 2: 'convnextv2_atto'}[version]
    model = timm.create_model(
        name, features_only=True, depths=DEPTHS, dims=DIMS
    )
    randomise(model)
    return model.state_dict(), model(image)


def hf_config(version: int):
    library = import_zoo('transformers')
    kind = {1: library.ConvNextConfig, 2: library.ConvNextV2Config}[version]
    return kind(
        depths=list(DEPTHS),
        hidden_sizes=list(DIMS),
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
        num_labels=7,
    )


def hf_case(image, version: int, kind: str = 'Model'):
    library = import_zoo('transformers')
    stem = {1: 'ConvNext', 2: 'ConvNextV2'}[version]
    model = randomise(getattr(library, stem + kind)(hf_config(version)))
    output = model(image, output_hidden_states=True)
    # The first is the stem's; a Backbone counts its stages alike.
    return model.state_dict(), list(output.hidden_states[1:])


def hf_dinov3(image, version: int, kind: str = 'Model'):
    library = import_zoo('transformers')
    config = library.DINOv3ConvNextConfig(
        depths=list(DEPTHS),
        hidden_sizes=list(DIMS),
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )
    model = randomise(getattr(library, 'DINOv3ConvNext' + kind)(config))
    output = model(image, output_hidden_states=True)
    return model.state_dict(), list(output.hidden_states[-4:])


def tv_case(image, version: int):
    tv = import_zoo('torchvision.models.convnext')
    rows = [
        tv.CNBlockConfig(dim, out, depth)
        for dim, out, depth in zip(DIMS, (*DIMS[1:], None), DEPTHS)
    ]
    model = randomise(tv.ConvNeXt(rows, num_classes=7))
    features, x = [], image
    for n, layer in enumerate(model.features):
        x = layer(x)
        features += [x] if n % 2 else []
    return model.state_dict(), features


def mmpretrain_case(image, version: int, linear: bool = True):
    import_zoo('mmpretrain')
    name = 'mmpretrain.models.multimodal'
    sys.modules.setdefault(name, ModuleType(name))
    library = import_zoo('mmpretrain.models.backbones.convnext')
    model = library.ConvNeXt(
        dict(depths=list(DEPTHS), channels=list(DIMS)),
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        linear_pw_conv=linear,
        use_grn=version == 2,
        layer_scale_init_value=0.0 if version == 2 else 1.0,
    )
    randomise(model)
    features, x = [], image
    for down, stage in zip(model.downsample_layers, model.stages):
        x = stage(down(x))
        features.append(x)
    return wrap(model.state_dict(), 'state_dict', 'backbone.'), features


LIBRARIES = {
    'timm V1': (timm_case, 1, {}),
    'timm V1 conv_mlp': (timm_case, 1, dict(conv_mlp=True)),
    'timm V1 head norm first': (timm_case, 1, dict(head_norm_first=True)),
    'timm V2': (timm_case, 2, {}),
    'timm V2 conv_mlp': (timm_case, 2, dict(conv_mlp=True)),
    'timm V1 features_only': (timm_features, 1, {}),
    'timm V2 features_only': (timm_features, 2, {}),
    'OpenCLIP trunk': (timm_clip, 1, {}),
    'transformers V1': (hf_case, 1, {}),
    'transformers V1 classifier': (
        hf_case,
        1,
        dict(kind='ForImageClassification'),
    ),
    'transformers V1 backbone': (hf_case, 1, dict(kind='Backbone')),
    'transformers V2': (hf_case, 2, {}),
    'transformers V2 classifier': (
        hf_case,
        2,
        dict(kind='ForImageClassification'),
    ),
    'transformers V2 backbone': (hf_case, 2, dict(kind='Backbone')),
    'transformers DINOv3': (hf_dinov3, 1, {}),
    'transformers DINOv3 backbone': (hf_dinov3, 1, dict(kind='Backbone')),
    'torchvision': (tv_case, 1, {}),
    'mmpretrain V1': (mmpretrain_case, 1, {}),
    'mmpretrain V1 conv': (mmpretrain_case, 1, dict(linear=False)),
    'mmpretrain V2': (mmpretrain_case, 2, {}),
    'mmpretrain V2 conv': (mmpretrain_case, 2, dict(linear=False)),
}


@pytest.mark.parametrize('case', LIBRARIES)
@torch.no_grad()
def test_features_equal_the_library(case: str, image) -> None:
    build, version, kwargs = LIBRARIES[case]
    state, features = build(image, version, **kwargs)
    target = backbone(version)
    load(target, state)
    worst = assert_close(stage_features(target, image), list(features))
    print(f'{case}: {worst:.1e}')


@pytest.mark.parametrize('version', (1, 2))
@pytest.mark.parametrize('arch', ('atto', None))
@torch.no_grad()
def test_timm_loads_the_export(version: int, arch, image) -> None:
    timm = import_zoo('timm')
    source = randomise(backbone(version, arch=arch or ARCH))
    name = ('convnext_atto', 'convnextv2_atto')[version - 1]
    sizes = {} if arch else dict(depths=DEPTHS, dims=DIMS, conv_mlp=False)
    model = timm.create_model(name, num_classes=0, **sizes).eval()
    model.load_state_dict(export(source, 'timm'), strict=True)
    features = model.forward_intermediates(image, intermediates_only=True)
    assert_close(stage_features(source, image), features)


@pytest.mark.parametrize('version', (1, 2))
@torch.no_grad()
def test_transformers_loads_the_export(version: int, image) -> None:
    library = import_zoo('transformers')
    source = randomise(backbone(version))
    kind = ('ConvNextBackbone', 'ConvNextV2Backbone')[version - 1]
    model = getattr(library, kind)(hf_config(version)).eval()
    model.load_state_dict(export(source, 'transformers'), strict=True)
    assert_close(list(source(image)), list(model(image).feature_maps))
