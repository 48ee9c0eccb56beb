"""Every op on every path and device against the reference."""

import copy
import functools
import warnings

import pytest
import torch
from op_cases import (
    DTYPES,
    assert_as_good,
    cast,
    compare,
    depthwise_inputs,
    error,
    mlp_inputs,
    on_device,
    run_depthwise,
    run_mlp,
)
from torch import Tensor, nn

from mmconvnext import ConvNeXt, ConvNeXtBlock, ConvNeXtV2, ops
from mmconvnext.ops import choice, fused, onednn, operators
from mmconvnext.pretrain.visible_patches import GRN_SCOPES, VisiblePatches

VERSIONS = {1: ConvNeXt, 2: ConvNeXtV2}
MICRO = dict(depths=[1, 2, 2, 1], dims=[8, 40, 24, 32])
SHORT = dict(depths=[1, 1, 1, 1], dims=[8, 40, 24, 32])
# Odd and prime sides, C of atto; fewer rows than channels (GRN on the map),
# one position; several images; smaller than the kernel; token groups.
SHAPES = [
    (2, 13, 7, 40),
    (1, 41, 37, 8),
    (3, 2, 2, 80),
    (5, 3, 1, 40),
    (1, 1, 1, 16),
    (2, 95, 1, 40),
]
both = pytest.mark.parametrize('version', [1, 2])
needs_operators = pytest.mark.skipif(
    not choice.HAS_CUSTOM_OPS, reason='torch before 2.7 has no operators'
)


@pytest.fixture(params=['cpu', 'cuda'])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == 'cuda' and not torch.cuda.is_available():
        pytest.skip('cuda: there is no GPU')
    return request.param


@pytest.fixture(params=list(choice.KERNELS))
def path(request: pytest.FixtureRequest, device: str) -> str:
    """Every path of the table that can run on a device."""
    reason = ops.absent(request.param)
    if request.param == 'triton' and device == 'cpu':
        reason = 'test_triton runs it there, under its interpreter'
    if reason is not None:
        pytest.skip(f'{request.param}: {reason}')
    return request.param


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pieces so small that every map has several."""
    monkeypatch.setattr(fused, 'PIECE', 4 * 40 * 16)
    monkeypatch.setattr(onednn, 'LONGEST_SUM', 32)


@both
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_mlp_is_as_good_as_plain_pytorch(
    path: str, device: str, version: int, dtype: torch.dtype, shape: tuple
) -> None:
    inputs = on_device(mlp_inputs(version, shape), device)
    compare(run_mlp, inputs, dtype, path=path)


@both
@pytest.mark.parametrize('dtype', DTYPES[:2], ids=str)
@pytest.mark.parametrize('shape', SHAPES[:3], ids=str)
def test_mlp_without_onednn(
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    dtype: torch.dtype,
    shape: tuple,
) -> None:
    """Where torch has no such products, those of ``F.linear`` serve."""
    monkeypatch.setattr(onednn, 'LINEAR', None)
    monkeypatch.setattr(onednn, 'ONEDNN_DTYPES', onednn._onednn_dtypes())
    assert onednn.ONEDNN_DTYPES == ()
    compare(run_mlp, mlp_inputs(version, shape), dtype)


@both
@pytest.mark.parametrize('shape', SHAPES[:4], ids=str)
@pytest.mark.parametrize('dropped', [False, True])
def test_mlp_in_pieces(
    small_pieces: None,
    device: str,
    version: int,
    shape: tuple,
    dropped: bool,
) -> None:
    keep = None
    if dropped:
        factors = torch.tensor([0.0, 1.25, 1.25, 0.0, 1.25])[: shape[0]]
        keep = factors.view(-1, 1, 1, 1).to(device)
        keep = (keep.double(), keep)
    inputs = on_device(mlp_inputs(version, shape), device)
    compare(run_mlp, inputs, torch.float32, keep)


@pytest.mark.parametrize('dtype', DTYPES[:2], ids=str)
@pytest.mark.parametrize(
    'shape', [*SHAPES[:5], (1, 130, 17, 8), (1, 3, 300, 8)], ids=str
)
def test_depthwise_is_as_good_as_plain_pytorch(
    path: str, device: str, dtype: torch.dtype, shape: tuple
) -> None:
    inputs = on_device(depthwise_inputs(shape), device)
    compare(run_depthwise, inputs, dtype, path=path)


def test_float64_agrees_to_rounding(device: str) -> None:
    for version in VERSIONS:
        for shape in SHAPES:
            inputs = on_device(mlp_inputs(version, shape), device)
            inputs = cast(inputs, torch.float64)
            grad = torch.randn(shape, dtype=torch.float64, device=device)
            with ops.use('reference'):
                exact = run_mlp(inputs, grad)
            with ops.use('fused'):
                found = run_mlp(inputs, grad)
            torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)


@both
def test_recomputing_is_exact_and_saves_the_hidden_map(
    device: str, version: int
) -> None:
    shape = (2, 9, 5, 16)
    inputs = on_device(mlp_inputs(version, shape), device)
    inputs = cast(inputs, torch.float32)
    grad = torch.randn(shape, device=device)
    with ops.use('fused'):
        kept, plain = saved_elements(run_mlp, inputs, grad)
        less, again = saved_elements(run_mlp, inputs, grad, recompute=True)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert kept - less == 4 * grad.numel()
    with ops.use('reference'):
        plain = run_mlp(inputs, grad)
        again = run_mlp(inputs, grad, recompute=True)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def saved_elements(run, *args, **kwargs) -> tuple:
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run(*args, **kwargs)
    return sum(kept.values()), result


@pytest.mark.parametrize(('version', 'limit'), [(1, 6.2), (2, 6.2)])
def test_a_block_keeps_six_maps(
    device: str, version: int, limit: float
) -> None:
    block = ConvNeXtBlock(32, 0.0, 1.0 if version == 1 else None).to(device)
    x = torch.randn(1, 32, 40, 40, device=device)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    with ops.use('fused'):
        kept, _ = saved_elements(block, x)
    assert kept / x.numel() < limit
    with ops.use('reference'):
        plain, _ = saved_elements(block, x)
    assert plain / x.numel() > 12


def test_a_dead_channel_has_a_finite_gradient(device: str) -> None:
    inputs = on_device(mlp_inputs(2, (2, 9, 9, 8)), device)
    inputs['weight1'][3] = 0
    inputs['bias1'][3] = 0
    for shape in [(2, 9, 9, 8), (18, 3, 3, 8)]:  # folded and not
        view = {**inputs, **{k: inputs[k].view(shape) for k in ('x',)}}
        view['residual'] = inputs['residual'].view(shape)
        compare(run_mlp, view, torch.float32)


@both
@pytest.mark.parametrize('stream', [torch.float32, torch.bfloat16], ids=str)
def test_autocast(device: str, version: int, stream: torch.dtype) -> None:
    """Products in bfloat16, the result in the reference's type."""
    shape = (2, 13, 7, 40)
    inputs = on_device(mlp_inputs(version, shape), device)
    grad = torch.randn(shape, dtype=torch.float64, device=device)

    def run(path: str, dtype: torch.dtype, enabled: bool) -> list:
        given = cast(inputs, dtype)
        if enabled:
            for key in ('x', 'residual'):
                given[key] = inputs[key].to(stream).requires_grad_()
        bfloat16 = torch.autocast(device, torch.bfloat16, enabled=enabled)
        with ops.use(path), bfloat16:
            return run_mlp(given, grad)

    exact = run('reference', torch.float64, False)
    plain = run('reference', torch.float32, True)
    found = run('fused', torch.float32, True)
    assert_as_good(found, plain, exact, torch.bfloat16)


@both
def test_mixed_types_raise_as_they_do_in_pytorch(
    device: str, version: int
) -> None:
    inputs = on_device(mlp_inputs(version, (1, 3, 3, 8)), device)
    inputs = cast(inputs, torch.float32)
    inputs['x'] = inputs['x'].detach().bfloat16()
    inputs['residual'] = inputs['residual'].detach().bfloat16()
    with ops.use('fused'), pytest.raises(RuntimeError):
        run_mlp(inputs, torch.ones(1, 3, 3, 8, device=device))


@both
@pytest.mark.parametrize('op', ['mlp', 'depthwise'])
def test_second_derivatives(device: str, version: int, op: str) -> None:
    shape = (2, 3, 2, 4)
    inputs = on_device(mlp_inputs(version, shape), device)
    inputs = cast(inputs, torch.float64)
    if op == 'depthwise':
        inputs = {k: inputs[k] for k in ('x', 'weight1', 'bias2')}
        inputs['weight1'] = torch.randn(
            4, 1, 7, 7, dtype=torch.float64, device=device, requires_grad=True
        )
    keys = [k for k, t in inputs.items() if t is not None]
    run = first_derivative if op == 'mlp' else ops.depthwise_conv

    def call(*tensors: Tensor) -> Tensor:
        given = dict.fromkeys(inputs) | dict(zip(keys, tensors))
        return run(given) if op == 'mlp' else run(*given.values())

    tensors = [inputs[k] for k in keys]
    with ops.use('fused'):
        assert torch.autograd.gradcheck(call, tensors)
        assert torch.autograd.gradgradcheck(call, tensors)


def first_derivative(inputs: dict) -> Tensor:
    x, residual, *weights = inputs.values()
    given = 'fused', False, x, residual, None, 1e-6, *weights
    return operators.ConvNeXtMLP.apply(*given)


@both
def test_double_backward_twice_equals_the_reference(
    device: str, version: int
) -> None:
    """A gradient penalty through a whole backbone."""
    model = VERSIONS[version](MICRO).to(device)
    for param in model.parameters():
        nn.init.normal_(param, std=0.2)
    x = torch.randn(1, 3, 64, 64, device=device, requires_grad=True)
    results = []
    for path in ('reference', 'fused'):
        model.zero_grad()
        with ops.use(path):
            loss = sum(y.square().mean() for y in model(x))
            (grad,) = torch.autograd.grad(loss, x, create_graph=True)
            grad.square().sum().backward()
        results.append([p.grad.clone() for p in stage_weights(model)])
    for found, plain in zip(*results):
        assert error(found, plain.double()) < 1e-4


def stage_weights(model: nn.Module) -> list:
    return [p for n, p in model.named_parameters() if p.grad is not None]


@both
@pytest.mark.parametrize('private', [True, False])
def test_function_transforms(
    monkeypatch: pytest.MonkeyPatch, device: str, version: int, private: bool
) -> None:
    if not private:  # as in a torch without these names
        monkeypatch.setattr(choice, 'TRANSFORMS', None)
        monkeypatch.setattr(choice, '_forward_level', lambda: None)
        monkeypatch.setattr(choice, 'DISPATCH_MODES', None)
    model = VERSIONS[version](SHORT).eval().to(device)
    x = torch.randn(2, 3, 32, 32, device=device)
    params = dict(model.named_parameters())

    def loss(params: dict, x: Tensor) -> Tensor:
        y = torch.func.functional_call(model, params, (x[None],))
        return sum(out.square().sum() for out in y)

    grads = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, x)
    sum(out.square().sum() for out in model(x[:1])).backward()
    for name, param in model.named_parameters():
        torch.testing.assert_close(
            grads[name][0], param.grad, rtol=1e-3, atol=1e-3
        )
    _, tangent = torch.func.jvp(
        lambda x: model(x)[0], (x,), (torch.ones_like(x),)
    )
    assert tangent.isfinite().all()


@both
def test_tracing_keeps_plain_operators(version: int) -> None:
    model = VERSIONS[version](MICRO).eval()
    x = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the checks of the input
        traced = torch.jit.trace(model, x)
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not [k for k in kinds if 'mkldnn' in k or 'PythonOp' in k]
    torch.testing.assert_close(traced(x), model(x), rtol=1e-5, atol=1e-5)
    program = torch.export.export(model, (x,))
    assert not [n for n in program.graph.nodes if 'mmconvnext' in str(n)]


@both
@pytest.mark.parametrize(
    ('with_cp', 'dtype'), [(False, 'autocast'), ('hidden', 'float32')]
)
def test_compile_keeps_the_operators(version, with_cp, dtype) -> None:
    model = VERSIONS[version](SHORT, with_cp=with_cp)
    for param in model.parameters():
        nn.init.normal_(param, std=0.2)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _) -> object:
        graphs.append(graph)
        return graph.forward

    x = torch.randn(2, 3, 64, 48)
    autocast = torch.autocast('cpu', enabled=dtype == 'autocast')
    torch.compiler.reset()
    results = []
    whole = choice.HAS_CUSTOM_OPS  # before, the compiler breaks the graph
    for run in (
        model,
        torch.compile(model, fullgraph=whole, backend='aot_eager'),
        torch.compile(model, fullgraph=whole, backend=backend),
    ):
        model.zero_grad()
        with autocast:
            outs = run(x)
        sum(y.float().square().mean() for y in outs).backward()
        grads = [p.grad.clone() for p in model.parameters()]
        results.append([*outs, *grads])
    tolerance = 1e-4 if dtype == 'float32' else 3e-2
    for compiled in results[1:]:
        for found, eager in zip(compiled, results[0]):
            assert error(found, eager.double()) < tolerance
    if whole:
        (graph,) = graphs
        code = graph.print_readable(print_output=False)
        for op in choice.OPS:
            assert f'mmconvnext.fused_{op}' in code


@needs_operators
def test_operators_keep_their_promises(device: str) -> None:
    w = torch.randn(8, 1, 7, 7, device=device, requires_grad=True)
    x = torch.randn(2, 9, 5, 8, device=device, requires_grad=True)
    bias = torch.randn(8, device=device, requires_grad=True)
    # A GPU adds in another order each time.
    check = functools.partial(torch.library.opcheck, atol=1e-4, rtol=1e-4)
    from mmconvnext.ops import library

    own = library.OPERATORS['fused']
    check(own.depthwise_conv, (x, w, bias))
    for version in VERSIONS:
        inputs = on_device(mlp_inputs(version, (2, 9, 5, 8)), device)
        x, residual, *weights = cast(inputs, torch.float32).values()
        for recompute in (False, True):
            args = (True, recompute, x, residual, None, 1e-6)
            check(own.convnext_mlp, (*args, *weights))
        keep = torch.tensor([0.0, 2.0], device=device).view(2, 1, 1, 1)
        args = False, False, x, residual, keep, 1e-6, *weights
        with torch.no_grad():
            args = [t.detach() if isinstance(t, Tensor) else t for t in args]
            check(own.convnext_mlp, tuple(args))


@pytest.mark.parametrize('scope', GRN_SCOPES)
@pytest.mark.parametrize('even', [True, False])
def test_patches(scope: str, even: bool) -> None:
    """Token groups of visible patches, as in pre-training."""
    mask = torch.rand(3, 4, 5) < 0.6
    if even:
        mask = mask[:1].repeat(3, 1, 1)
    patches = VisiblePatches(mask, scope)
    model = ConvNeXtV2(MICRO)
    for param in model.parameters():
        nn.init.normal_(param, std=0.2)
    x = torch.randn(len(patches), 3, 32, 32)
    results = []
    for path in ('reference', 'fused'):
        model.zero_grad()
        with ops.use(path):
            outs = model(x, patches)
            sum(y.square().mean() for y in outs).backward()
        results.append([*outs, *(p.grad for p in model.parameters())])
    for found, plain in zip(*results[::-1]):
        assert error(found, plain.double()) < 1e-4


@both
def test_paths_train_alike(version: int) -> None:
    """Thirty steps from one seed; they differ by float noise only."""
    losses = {}
    for path in ('reference', 'fused'):
        torch.manual_seed(0)
        model = VERSIONS[version](MICRO, drop_path_rate=0.2).train()
        head = nn.Conv2d(32, 4, 1)
        params = [*model.parameters(), *head.parameters()]
        optim = torch.optim.AdamW(params, lr=1e-3)
        x, target = torch.randn(2, 3, 64, 64), torch.randint(4, (2, 2, 2))
        losses[path] = []
        with ops.use(path):
            for _ in range(30):
                loss = nn.functional.cross_entropy(head(model(x)[-1]), target)
                optim.zero_grad()
                loss.backward()
                optim.step()
                losses[path].append(loss.item())
    assert losses['reference'][-1] < losses['reference'][0] / 2
    torch.testing.assert_close(
        losses['fused'], losses['reference'], rtol=2e-3, atol=2e-3
    )


def test_gradients_lie_as_parameters_do() -> None:
    block = ConvNeXtBlock(8)
    with ops.use('fused'):
        block(torch.randn(2, 8, 9, 9)).sum().backward()
    for name, param in block.named_parameters():
        assert param.grad.stride() == param.stride(), name


def test_retaining_the_graph() -> None:
    block = ConvNeXtBlock(8)
    with ops.use('fused'):
        y = block(torch.randn(2, 8, 9, 9)).sum()
        y.backward(retain_graph=True)
        once = copy.deepcopy([p.grad for p in block.parameters()])
        y.backward()
    twice = [p.grad / 2 for p in block.parameters()]
    torch.testing.assert_close(twice, once, rtol=0, atol=0)


def test_state_does_not_depend_on_the_path() -> None:
    states = []
    for path in ('reference', 'fused'):
        torch.manual_seed(0)
        with ops.use(path):
            states.append(ConvNeXtV2(MICRO).state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)
