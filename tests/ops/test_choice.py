"""Who chooses the path of an op, and that ``explain`` says what runs."""

import itertools
import os
import re
import subprocess
import sys
from typing import Callable, Iterator, List

import pytest
import torch
from op_cases import mlp_inputs, on_device, skip_without
from torch import Tensor, nn

from mmconvnext import ConvNeXtBlock, ops
from mmconvnext.ops import choice, depthwise, fused, onednn, reference
from mmconvnext.ops.grn_folding import Weights

needs_onednn = pytest.mark.skipif(
    not onednn.ONEDNN_DTYPES, reason='the measured paths need oneDNN on x86'
)
SMALL, LARGE = (1, 16, 16, 8), (1, 96, 96, 8)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Marked(Tensor):
    """What looks at operators."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Names of the functions that computed, in the order of the calls."""
    names = []

    def watch(module: object, function: str, name: str) -> None:
        original = getattr(module, function)

        def spy(*args: object, **kwargs: object) -> object:
            names.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, function, spy)

    for op in choice.OPS:
        watch(reference, op, f'{op} reference')
    watch(depthwise, 'forward', 'depthwise_conv fused')
    for function in ('infer', 'forward'):
        watch(fused, function, 'convnext_mlp fused')
    return names


def both(
    x: Tensor, taps: Tensor, residual: Tensor, weights: list, keep: Tensor
) -> tuple:
    pairs = Weights(*weights).arguments()
    return (
        ops.depthwise_conv(x, taps),
        ops.convnext_mlp(x, residual, *pairs, keep),
    )


def arguments(
    shape: tuple = LARGE,
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
    training: bool = True,
    kind: type = Tensor,
    keep_grad: bool = False,
) -> tuple:
    """What ``explain`` describes, for :func:`both`."""
    inputs = on_device(mlp_inputs(2, shape), device).values()
    x, residual, *weights = (t if t is None else t.to(dtype) for t in inputs)
    x = x.requires_grad_(training).as_subclass(kind)
    keep = torch.ones(len(x), 1, 1, 1, dtype=dtype, device=device)
    keep.requires_grad_(keep_grad)
    taps = torch.ones(shape[-1], 1, 7, 7, dtype=dtype, device=device)
    return x, taps, residual, weights, keep


def explained(*args: object, **kwargs: object) -> List[str]:
    lines = ops.explain(*args, **kwargs).splitlines()[1:3]
    return [' '.join(line.split()[:2]) for line in lines]


def cases() -> Iterator[dict]:
    for values in itertools.product(
        (SMALL, LARGE), (True, False), (Tensor, Marked), (False, True)
    ):
        yield dict(zip(('shape', 'training', 'kind', 'keep_grad'), values))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('forced', ['auto', 'reference', 'fused'])
@pytest.mark.parametrize('device', ['cpu', 'cuda', 'meta'])
def test_explain_names_what_runs(
    ran: List[str],
    device: str,
    forced: str,
    autocast: bool,
    dtype: torch.dtype,
) -> None:
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('cuda: there is no GPU')
    if device == 'meta' and (forced == 'fused' or autocast):
        pytest.skip('meta: nothing computes there')
    skip_without(dtype, device)
    on = 'cpu' if device == 'meta' else device
    bfloat16 = torch.autocast(on, torch.bfloat16, enabled=autocast)
    for case in cases():
        del ran[:]
        with ops.use(forced), bfloat16:
            said = explained(dtype=dtype, device=device, **case)
            both(*arguments(dtype=dtype, device=device, **case))
        assert ran == said, case


@pytest.mark.parametrize(
    ('forced', 'shape', 'training', 'kind', 'keep_grad'),
    [
        ('auto', LARGE, True, Tensor, False),
        ('auto', LARGE, False, Tensor, False),
        ('auto', SMALL, True, Tensor, False),
        ('auto', LARGE, True, Marked, False),
        ('auto', LARGE, True, Tensor, True),
        ('reference', LARGE, True, Tensor, False),
        ('fused', LARGE, False, Tensor, False),
        ('fused', SMALL, True, Marked, False),
        ('fused', SMALL, True, Tensor, True),
    ],
)
def test_explain_names_what_compiled_code_runs(
    forced: str, shape: tuple, training: bool, kind: type, keep_grad: bool
) -> None:
    targets: List[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compiler.reset()
    case = dict(training=training, kind=kind, keep_grad=keep_grad)
    with ops.use(forced):
        said = explained(shape, compiling=True, **case)
        torch.compile(both, backend=backend)(*arguments(shape, **case))
    for op, line in zip(choice.OPS, said):
        kept = any(f'mmconvnext.fused_{op}' in target for target in targets)
        assert line == f'{op} {"fused" if kept else "reference"}'


@needs_onednn
def test_the_choice_on_a_cpu() -> None:
    for shape, training, paths in (
        (LARGE, True, ['fused', 'fused']),
        (LARGE, False, ['reference', 'fused']),
        (SMALL, True, ['fused', 'reference']),
    ):
        found = explained(shape, training=training)
        assert [x.split()[1] for x in found] == paths


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('device', ['cuda', 'mps', 'xpu', 'meta'])
def test_nothing_unmeasured_is_chosen(device: str, dtype: torch.dtype) -> None:
    """On GPUs the reference, but for what was measured there."""
    for op, shape, training in itertools.product(
        choice.OPS, (SMALL, LARGE), (True, False)
    ):
        asked = choice.Call(op, device, dtype, shape, training)
        assert choice.decide(asked).path == 'reference'
        with ops.use('fused'):  # by name it still runs
            assert choice.decide(asked).path == 'fused'


LARGER = (2, 200, 336, 128)


@pytest.mark.parametrize(
    ('changes', 'path'),
    [
        ({}, 'triton'),
        (dict(training=False), 'triton'),
        (dict(shape=(2, 100, 168, 256)), 'reference'),
        (dict(shape=(2, 50, 84, 512), dtype=torch.float32), 'triton'),
        (dict(dtype=torch.float64), 'reference'),
        (dict(compiling=True), 'reference'),
        (dict(dilation=2), 'reference'),
        (dict(device='xpu'), 'reference'),
    ],
    ids=str,
)
@pytest.mark.parametrize('op', choice.OPS)
def test_the_choice_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, op: str, changes: dict, path: str
) -> None:
    call = choice.Call(op, 'cuda', torch.bfloat16, LARGER, True)
    call = call._replace(**changes)
    monkeypatch.setattr(choice, '_has_triton', lambda: True)
    assert choice.decide(call).path == path
    monkeypatch.setattr(choice, '_has_triton', lambda: False)
    assert choice.decide(call).path == 'reference'


def in_trace(run: Callable) -> None:
    def function(x: Tensor) -> Tensor:
        run()
        return x

    torch.jit.trace(function, torch.ones(1), check_trace=False)


def in_vmap(run: Callable) -> None:
    def function(x: Tensor) -> Tensor:
        run()
        return x

    torch.func.vmap(function, randomness='same')(torch.ones(1))


def in_dual_level(run: Callable) -> None:
    with torch.autograd.forward_ad.dual_level():
        run()


def in_dispatch_mode(run: Callable) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        run()


# A word of the reason, and what brings it about.
STATES = {
    'tracing': in_trace,
    'torch.func': in_vmap,
    'forward-mode': in_dual_level,
    'dispatch mode': in_dispatch_mode,
}


@pytest.mark.parametrize('forced', ['auto', 'fused'])
@pytest.mark.parametrize('state', STATES)
def test_explain_sees_where_it_is_called(
    ran: List[str], state: str, forced: str
) -> None:
    # A trace takes no constant that requires a gradient.
    said, given = [], arguments(training=False)

    def run() -> None:
        said.append(ops.explain(LARGE, training=False))
        both(*given)

    with ops.use(forced):
        STATES[state](run)
    assert ran == [f'{op} reference' for op in choice.OPS]
    assert said[0].count('reference ') == 3
    assert said[0].count(state) == 2


@pytest.mark.parametrize('state', ['torch.func', 'forward-mode'])
def test_states_are_seen_without_private_names(
    monkeypatch: pytest.MonkeyPatch, ran: List[str], state: str
) -> None:
    monkeypatch.setattr(choice, 'TRANSFORMS', None)
    monkeypatch.setattr(choice, 'DISPATCH_MODES', None)
    monkeypatch.setattr(choice, '_forward_level', lambda: None)
    given = arguments()
    with ops.use('fused'):
        STATES[state](lambda: both(*given))
        assert ran == [f'{op} reference' for op in choice.OPS]
        del ran[:]
        both(*given)
        assert ran == [f'{op} fused' for op in choice.OPS]


def test_a_torch_that_cannot_say_whether_it_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.compiler, 'is_compiling', raising=False)
    old = lambda: True  # noqa: E731
    monkeypatch.setattr(torch._utils, 'is_compiling', old, raising=False)
    assert choice._find_is_compiling() is old
    monkeypatch.delattr(torch._utils, 'is_compiling', raising=False)
    assert choice._find_is_compiling()() is False


def test_bfloat16_needs_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch's word on bfloat16 only float32 is fast."""
    names = {'_linear_pointwise': object()}
    monkeypatch.setattr(torch.ops, 'mkldnn', type('Old', (), names)())
    assert set(onednn._onednn_dtypes()) <= {torch.float32}


def test_use_forces_and_restores() -> None:
    assert choice.forced() == 'auto'
    with ops.use('reference'):
        assert choice.forced() == 'reference'
        with ops.use('fused'):
            assert choice.forced() == 'fused'
        assert choice.forced() == 'reference'
    assert choice.forced() == 'auto'
    try:
        ops.use('fused')
        assert choice.forced() == 'fused'
    finally:
        ops.use('auto')


def test_what_is_absent_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="auto.*fused.*got 'fast'"):
        ops.use('fast')
    monkeypatch.setattr(choice, 'find_spec', lambda name: None)
    with pytest.raises(RuntimeError, match='triton.*not installed'):
        ops.use('triton')
    assert choice.forced() == 'auto'


@pytest.mark.parametrize(
    ('value', 'expected'),
    [('reference', 'reference'), ('fastest', "ValueError.*'fastest'")],
)
def test_the_environment_forces(value: str, expected: str) -> None:
    code = 'from mmconvnext import ops; ops.explain()'
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, choice.VARIABLE: value},
        capture_output=True,
        text=True,
    )
    text = done.stdout + done.stderr
    assert re.search(expected, text), text


def test_explain_prints_what_it_returns(
    capsys: pytest.CaptureFixture,
) -> None:
    text = ops.explain(shape=(1, 16, 16, 96), dtype=torch.float64)
    assert capsys.readouterr().out.strip() == text
    for op in choice.OPS:
        assert f'{op:15} reference' in text
    with ops.use('fused'):
        assert 'fused      forced' in ops.explain()


def test_a_subclass_keeps_its_type() -> None:
    x = torch.randn(1, 8, 9, 9).as_subclass(Marked)
    with ops.use('fused'):
        assert type(ConvNeXtBlock(8)(x)) is Marked


def test_a_weight_of_another_class_counts(ran: List[str]) -> None:
    x, taps = torch.randn(1, 9, 9, 8), torch.randn(8, 1, 7, 7)
    with ops.use('fused'):
        ops.depthwise_conv(x, nn.Parameter(taps))
        ops.depthwise_conv(x, taps.as_subclass(Marked))
    assert ran == ['depthwise_conv fused', 'depthwise_conv reference']


def test_a_dilated_convolution_is_the_reference(ran: List[str]) -> None:
    x, taps = torch.randn(1, 9, 9, 8), torch.randn(8, 1, 7, 7)
    with ops.use('fused'):
        said = explained(LARGE, dilation=2)
        ops.depthwise_conv(x, taps, None, 2)
    assert said == ['depthwise_conv reference', 'convnext_mlp fused']
    assert ran == said[:1]


def test_drop_path_factors_get_a_gradient() -> None:
    inputs = mlp_inputs(1, (2, 3, 3, 8))
    x, residual, *weights = inputs.values()
    keep = torch.ones(2, 1, 1, 1, dtype=x.dtype, requires_grad=True)
    pairs = Weights(*weights).arguments()
    with ops.use('fused'):
        ops.convnext_mlp(x, residual, *pairs, keep).sum().backward()
    assert keep.grad is not None and keep.grad.abs().sum() > 0


@needs_onednn
@pytest.mark.parametrize(
    ('shape', 'path'),
    [
        ((1, 32, 32, 40), 'reference'),
        ((1, 7, 7, 768), 'fused'),  # a small map, large weights
        ((8, 1216, 1, 40), 'fused'),  # the other way round
        ((1, 16, 16, 320), 'fused'),
    ],
    ids=str,
)
def test_small_maps_take_plain_pytorch(shape: tuple, path: str) -> None:
    asked = choice.Call('convnext_mlp', 'cpu', torch.float32, shape, True)
    assert choice.decide(asked).path == path
