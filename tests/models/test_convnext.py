import copy
import pickle
import warnings
from typing import Optional

import pytest
import torch
from backbones import MICRO, VERSIONS, both, micro, randomize
from imports import import_zoo
from mmengine.registry import MODELS
from torch import nn

from mmconvnext import ARCHS, ConvNeXt, ConvNeXtBlock, ConvNeXtV2


def shapes(cls: type) -> dict:
    return {k: tuple(v.shape) for k, v in micro(cls).state_dict().items()}


def test_contract_of_parameter_names() -> None:
    names = {
        k: tuple(v.shape) for k, v in micro(ConvNeXt).state_dict().items()
    }
    down = {
        0: {'0': (8, 3, 4, 4), '1': (8,)},
        1: {'0': (8,), '1': (40, 8, 2, 2)},
        2: {'0': (40,), '1': (24, 40, 2, 2)},
        3: {'0': (24,), '1': (32, 24, 2, 2)},
    }
    expected = {}
    for i, (depth, dim) in enumerate(zip(MICRO['depths'], MICRO['dims'])):
        for part, shape in down[i].items():
            expected[f'downsample_layers.{i}.{part}.weight'] = shape
            expected[f'downsample_layers.{i}.{part}.bias'] = shape[:1]
        if i:  # the bias of the norm before a convolution has its input size
            expected[f'downsample_layers.{i}.0.bias'] = down[i]['0']
        for j in range(depth):
            block = f'stages.{i}.{j}'
            expected[f'{block}.dwconv.weight'] = (dim, 1, 7, 7)
            expected[f'{block}.dwconv.bias'] = (dim,)
            expected[f'{block}.norm.weight'] = (dim,)
            expected[f'{block}.norm.bias'] = (dim,)
            expected[f'{block}.pwconv1.weight'] = (4 * dim, dim)
            expected[f'{block}.pwconv1.bias'] = (4 * dim,)
            expected[f'{block}.pwconv2.weight'] = (dim, 4 * dim)
            expected[f'{block}.pwconv2.bias'] = (dim,)
            expected[f'{block}.gamma'] = (dim,)
        expected[f'norm{i}.weight'] = expected[f'norm{i}.bias'] = (dim,)
    assert names == expected

    for name in [k for k in expected if k.endswith('.gamma')]:
        block = name[: -len('.gamma')]
        (dim,) = expected.pop(name)
        expected[f'{block}.grn.gamma'] = (4 * dim,)
        expected[f'{block}.grn.beta'] = (4 * dim,)
    assert shapes(ConvNeXtV2) == expected


@pytest.mark.parametrize(
    ('arch', 'version', 'millions'),
    [(a, v, n) for a, row in ARCHS.items() for v, n in row.params.items()],
)
def test_parameter_counts(
    arch: str, version: int, millions: Optional[float]
) -> None:
    with torch.device('meta'):
        model = VERSIONS[version](arch, out_indices=(3,))
        head = nn.Linear(ARCHS[arch].dims[-1], 1000)
    count = sum(p.numel() for m in (model, head) for p in m.parameters())
    if millions is None:
        pytest.skip('no count is published')
    assert count / 1e6 == pytest.approx(millions, rel=5e-3)


@both
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (61, 127), (128, 32)])
def test_output_shapes(cls: type, size: tuple) -> None:
    model = micro(cls)
    outs = model(torch.randn(2, 3, *size))
    for out, dim, stride in zip(outs, MICRO['dims'], (4, 8, 16, 32)):
        assert out.shape == (2, dim, size[0] // stride, size[1] // stride)
        assert out.is_contiguous()


@both
def test_outputs_are_normalised(cls: type) -> None:
    model = cls(MICRO).eval()  # output norms start as the identity
    for out in model(torch.randn(1, 3, 64, 96)):
        torch.testing.assert_close(
            out.mean(1), torch.zeros_like(out[:, 0]), atol=1e-5, rtol=0
        )


@both
def test_out_indices(cls: type) -> None:
    x = torch.randn(1, 3, 40, 72)
    full = micro(cls)
    expected = full(x)
    for indices in [(0,), (1, 2), (-1,), [3, 0], (0, -2)]:
        model = cls(MICRO, out_indices=indices).eval()
        keys = model.state_dict().keys()
        model.load_state_dict(
            {k: v for k, v in full.state_dict().items() if k in keys}
        )
        outs = model(x)
        assert model.out_channels == tuple(MICRO['dims'][i] for i in indices)
        assert model.out_strides == tuple((4, 8, 16, 32)[i] for i in indices)
        for out, i in zip(outs, indices):
            torch.testing.assert_close(out, expected[i], rtol=0, atol=0)


@both
@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(arch='gigantic'), 'gigantic.*known: atto, femto'),
        (dict(arch=dict(depths=[1])), 'depths=.*dims='),
        (dict(arch=dict(depths=[1, 1, 1], dims=[8] * 4)), 'depths'),
        (dict(arch=dict(depths=[1] * 4, dims=[8, 8, 8, 0])), 'dims'),
        (dict(out_indices=(4,)), r'-4 to 3.*\(4,\)'),
        (dict(out_indices=(-5,)), '-4 to 3'),
        (dict(out_indices=(3, -1)), 'repeats'),
        (dict(out_indices=()), 'out_indices'),
        (dict(drop_path_rate=1.0), 'drop_path_rate.*1.0'),
        (dict(with_cp='all'), "with_cp.*'hidden'.*'all'"),
        (dict(frozen_stages=5), 'frozen_stages.*5'),
    ],
)
def test_bad_options_raise(cls: type, kwargs: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cls(**{'arch': MICRO, **kwargs})


@both
def test_pretrained_is_none_as_mmseg_passes_it(cls: type) -> None:
    assert cls(MICRO, pretrained=None).init_cfg is None
    cfg = dict(type=f'mmconvnext.{cls.__name__}', arch=MICRO, pretrained=None)
    assert MODELS.build(cfg).arch == MICRO
    with pytest.raises(ValueError, match=r"'torchvision://.*init_cfg="):
        cls(MICRO, pretrained='torchvision://convnext_tiny')


@both
def test_options_are_keywords(cls: type) -> None:
    with pytest.raises(TypeError, match='positional'):
        cls(MICRO, 4)


@both
@pytest.mark.parametrize(
    ('shape', 'match'),
    [
        ((1, 3, 31, 64), '32 x 32.*31 x 64'),
        ((1, 3, 64, 31), '32 x 32.*64 x 31'),
        ((1, 4, 64, 64), r'\(N, 3, H, W\).*\(1, 4, 64, 64\)'),
        ((3, 64, 64), r'\(N, 3, H, W\)'),
    ],
)
def test_bad_input_raises(cls: type, shape: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        micro(cls)(torch.randn(shape))


def test_initialisation_is_as_published() -> None:
    model = ConvNeXtV2('atto')
    weights = torch.cat(
        [
            m.weight.flatten()
            for m in model.modules()
            if isinstance(m, (nn.Conv2d, nn.Linear))
        ]
    )
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    for name, param in model.named_parameters():
        if name.endswith('bias') or '.grn.' in name:
            assert not param.any(), name
    v1 = ConvNeXt(MICRO, layer_scale_init_value=0.5)
    assert (v1.stages[2][1].gamma == 0.5).all()
    assert (ConvNeXt(MICRO).stages[0][0].gamma == 1e-6).all()


def test_drop_path_rates_rise_linearly() -> None:
    model = ConvNeXt(MICRO, drop_path_rate=0.5)
    rates = [b.drop_path for stage in model.stages for b in stage]
    torch.testing.assert_close(rates, torch.linspace(0, 0.5, 6).tolist())


def test_drop_path_drops_whole_samples() -> None:
    block = ConvNeXtBlock(8, drop_path=0.5).train()
    x = torch.randn(64, 8, 5, 3)
    branch = block(x) - x
    kept = branch.flatten(1).abs().amax(1) > 0
    assert 16 < kept.sum() < 48
    block.eval()
    torch.testing.assert_close(branch[kept], 2 * (block(x) - x)[kept])


@both
@pytest.mark.parametrize('frozen', range(-1, 5))
def test_frozen_stages(cls: type, frozen: int) -> None:
    model = cls(MICRO, frozen_stages=frozen, drop_path_rate=0.3)
    assert model.train() is model
    assert model.eval() is model
    model.train()
    outs = model(torch.randn(2, 3, 40, 40))
    sum(out.sum() for out in outs).backward()

    def is_frozen(name: str) -> bool:
        part, index = name.split('.')[:2]
        if part == 'downsample_layers':
            return int(index) < max(frozen, 0 if frozen < 0 else 1)
        return part == 'stages' and int(index) < frozen

    for name, param in model.named_parameters():
        assert (param.grad is None) == is_frozen(name), name
    for name, module in model.named_modules():
        if name.count('.') > 1:
            assert module.training != is_frozen(name), name


@both
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_activation_checkpointing_is_exact(
    cls: type, drop_path_rate: float
) -> None:
    plain = randomize(cls(MICRO, drop_path_rate=drop_path_rate)).train()
    saving = copy.deepcopy(plain)
    saving.with_cp = True
    results = []
    for model in (plain, saving):
        torch.manual_seed(1)
        outs = model(torch.randn(4, 3, 41, 64))
        sum(out.square().mean() for out in outs).backward()
        results.append((outs, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@both
def test_channels_last_input(cls: type) -> None:
    model = micro(cls)
    x = torch.randn(2, 3, 64, 48)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    outs = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(outs, expected, rtol=1e-5, atol=1e-5)


@both
@pytest.mark.parametrize('mode', ['autocast', 'bfloat16'])
def test_low_precision_stays_close(cls: type, mode: str) -> None:
    model = micro(cls)
    x = torch.randn(2, 3, 64, 48)
    expected = model(x)
    if mode == 'autocast':
        with torch.autocast('cpu', torch.bfloat16):
            outs = model(x)
    else:
        outs = copy.deepcopy(model).bfloat16()(x.bfloat16())
    # bfloat16 keeps 8 bits; errors add up over 6 blocks.
    for out, ref in zip(outs, expected):
        error = (out.float() - ref).norm() / ref.norm()
        assert error < 0.03


@both
def test_copy_and_pickle(cls: type) -> None:
    model = micro(cls)
    x = torch.randn(1, 3, 32, 40)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)


@both
def test_compile_without_graph_breaks(cls: type) -> None:
    model = micro(cls)
    model.with_cp = True
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 3, 64, 48)
    expected = model(x)
    outs = compiled(x)
    torch.testing.assert_close(outs, expected, rtol=1e-5, atol=1e-5)
    sum(out.sum() for out in outs).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(out.sum() for out in expected).backward()
    torch.testing.assert_close(
        grads, [p.grad for p in model.parameters()], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@both
def test_compiled_blocks_serve_every_size(
    cls: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen blocks, more than torch.compile keeps variants of one code."""
    graphs, real = [], torch.compile

    def backend(graph: torch.fx.GraphModule, _) -> object:
        graphs.append(graph)
        return graph.forward

    def compile_cheaply(function: object, **kwargs) -> object:
        return real(function, backend=backend, fullgraph=True, **kwargs)

    monkeypatch.setattr(torch, 'compile', compile_cheaply)
    torch._dynamo.reset()
    arch = dict(depths=[2, 2, 10, 2], dims=[8, 16, 24, 32])
    model = randomize(cls(arch, drop_path_rate=0.1, compile_backbone=True))
    plain = copy.deepcopy(model)
    plain.compile_backbone = False
    counts = []
    for size in [(64, 64), (96, 64), (64, 96), (128, 160), (70, 77)]:
        x = torch.randn(2, 3, *size)
        sum(out.sum() for out in model.train()(x)).backward()
        counts.append(len(graphs))
    assert counts[0] >= 16
    # torch 2.1 needs a third size to see that all of them vary.
    later = counts[2 if torch.__version__.startswith('2.1.') else 1 :]
    assert later == later[:1] * len(later)
    outs = copy.deepcopy(model).eval()(x)
    torch.testing.assert_close(outs, plain.eval()(x), rtol=1e-4, atol=1e-4)


@both
def test_export(cls: type) -> None:
    model = micro(cls)
    program = torch.export.export(model, (torch.randn(1, 3, 64, 96),))
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(
        program.module()(x), model(x), rtol=1e-5, atol=1e-5
    )


@both
def test_distributed_data_parallel(cls: type, tmp_path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(micro(cls))
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # strides of grads, unused params
            for _ in range(2):
                outs = model(torch.randn(1, 3, 32, 32))
                sum(out.sum() for out in outs).backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


def timm_name(name: str, version: int) -> str:
    """Translate one of our parameter names into timm's."""
    parts = name.split('.')
    if parts[:2] == ['downsample_layers', '0']:
        return '.'.join(['stem', *parts[2:]])
    if parts[0] == 'downsample_layers':
        return '.'.join(['stages', parts[1], 'downsample', *parts[2:]])
    inner = {
        'dwconv': 'conv_dw',
        'pwconv1': 'mlp.fc1',
        'pwconv2': 'mlp.fc2',
        'grn': 'mlp.grn',
    }
    leaf = {'grn.gamma': 'weight', 'grn.beta': 'bias'}
    tail = leaf.get('.'.join(parts[3:]), parts[-1])
    middle = [inner.get(parts[3], parts[3])] if len(parts) > 4 else []
    return '.'.join(['stages', parts[1], 'blocks', parts[2], *middle, tail])


def stage_maps(model: nn.Module, x: torch.Tensor) -> list:
    maps = []
    for down, stage in zip(model.downsample_layers, model.stages):
        x = stage(down(x))
        maps.append(x)
    return maps


def assert_close_relative(outs: list, refs: list) -> None:
    assert len(outs) == len(refs)
    for out, ref in zip(outs, refs):
        assert out.shape == ref.shape
        assert (out - ref).norm() / ref.norm() < 2e-5


ZOO_ARCHS = {
    'micro': MICRO,
    'tiny': dict(depths=ARCHS['tiny'].depths, dims=ARCHS['tiny'].dims),
}


@pytest.mark.parametrize('arch', ZOO_ARCHS)
@pytest.mark.parametrize('version', VERSIONS)
@torch.no_grad()
def test_features_equal_timm(version: int, arch: str) -> None:
    timm = import_zoo('timm')
    model = randomize(VERSIONS[version](ZOO_ARCHS[arch])).eval()
    other = timm.models.convnext.ConvNeXt(
        depths=ZOO_ARCHS[arch]['depths'],
        dims=ZOO_ARCHS[arch]['dims'],
        use_grn=version == 2,
        ls_init_value=1e-6 if version == 1 else None,
        num_classes=0,
    ).eval()
    state = {
        timm_name(k, version): v
        for k, v in model.state_dict().items()
        if not k.startswith('norm')
    }
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith('head.') for key in missing)
    x = torch.randn(2, 3, 75, 134)
    refs = other.forward_intermediates(x, intermediates_only=True)
    assert_close_relative(stage_maps(model, x), refs)


def hf_name(name: str) -> str:
    """Translate one of our parameter names into that of transformers."""
    parts = name.split('.')
    if parts[0].startswith('norm'):
        stage = int(parts[0][4:]) + 1
        return f'hidden_states_norms.stage{stage}.{parts[1]}'
    if parts[:2] == ['downsample_layers', '0']:
        stem = {'0': 'patch_embeddings', '1': 'layernorm'}[parts[2]]
        return f'embeddings.{stem}.{parts[3]}'
    if parts[0] == 'downsample_layers':
        rest = '.'.join(parts[2:])
        return f'encoder.stages.{parts[1]}.downsampling_layer.{rest}'
    rest = '.'.join(parts[3:])
    rest = {
        'norm.weight': 'layernorm.weight',
        'norm.bias': 'layernorm.bias',
        'gamma': 'layer_scale_parameter',
        'grn.gamma': 'grn.weight',
        'grn.beta': 'grn.bias',
    }.get(rest, rest)
    return f'encoder.stages.{parts[1]}.layers.{parts[2]}.{rest}'


@pytest.mark.parametrize('arch', ZOO_ARCHS)
@pytest.mark.parametrize('version', VERSIONS)
@torch.no_grad()
def test_outputs_equal_transformers(version: int, arch: str) -> None:
    transformers = import_zoo('transformers')
    name = {1: 'ConvNext', 2: 'ConvNextV2'}[version]
    model = randomize(VERSIONS[version](ZOO_ARCHS[arch])).eval()
    config = getattr(transformers, f'{name}Config')(
        depths=list(ZOO_ARCHS[arch]['depths']),
        hidden_sizes=list(ZOO_ARCHS[arch]['dims']),
        out_indices=[1, 2, 3, 4],
    )
    other = getattr(transformers, f'{name}Backbone')(config).eval()
    state = {hf_name(k): v for k, v in model.state_dict().items()}
    wanted = {k: v.shape for k, v in other.state_dict().items()}
    other.load_state_dict(
        {k: v.reshape(wanted[k]) for k, v in state.items()}, strict=True
    )
    x = torch.randn(2, 3, 75, 134)
    assert_close_relative(list(model(x)), list(other(x).feature_maps))
