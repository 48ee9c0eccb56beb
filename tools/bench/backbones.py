"""Our backbone against everybody else's: time, memory, correctness."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .subjects import DEFAULT, OURS, build, is_compiled, ours
from .timing import Row, compare, peak_mib, rounds

PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16}
PASSES = ('inference', 'training')
# Odd numbers of positions in the last two stages.
GATE_SIZE = (2, 3, 96, 160)
# Sums in other orders through all blocks, in float32.
COMPILED_ERROR = 1e-4


def images(args: Namespace, name: str, shape: Sequence[int]) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x = x.to(args.device)
    last = name.split('+')[0].endswith('-cl')
    return x.contiguous(memory_format=torch.channels_last) if last else x


def outcome(model: nn.Module, x: Tensor) -> List[Tensor]:
    """Maps and the gradient of the input, from fixed gradients of maps."""
    x = x.clone().requires_grad_()
    maps = list(model(x))
    generator = torch.Generator().manual_seed(2)
    grads = [
        torch.randn(y.shape, generator=generator).to(y.device, y.dtype)
        for y in maps
    ]
    (grad,) = torch.autograd.grad(maps, x, grads)
    return [*(y.detach() for y in maps), grad]


def check(models: Dict[str, nn.Module], source: nn.Module, args) -> None:
    """Compare with plain PyTorch in float64, on small images.

    Raises:
        ValueError: where a subject's error is over twice that of plain
            PyTorch in float32, or of two roundings of the result.
    """
    shape = GATE_SIZE
    exact = outcome(
        copy.deepcopy(source).double(), images(args, '', shape).double()
    )
    plain = build(['ours-reference'], source)[0]['ours-reference']
    floor = 2 * torch.finfo(torch.float32).eps
    bounds = [
        2 * max(_error(y, z), floor)
        for y, z in zip(outcome(plain, images(args, '', shape)), exact)
    ]
    for name, model in models.items():
        if is_compiled(name):
            continue  # small images would compile it for any size
        found = outcome(model, images(args, name, shape))
        for i, (y, z, bound) in enumerate(zip(found, exact, bounds)):
            # Other libraries normalise and add in other orders.
            bound = bound if name.startswith(OURS) else 4 * bound
            if _error(y, z) > bound:
                raise ValueError(
                    f'{name} computes something else: relative error '
                    f'{_error(y, z):.1e} of output {i}, at most {bound:.1e}'
                )


def trained(model: nn.Module, x: Tensor, precision: str) -> List[Tensor]:
    """Maps and the gradient of the stem's weight, as training runs."""
    dtype = PRECISIONS[precision]
    with torch.autocast(x.device.type, dtype, enabled=bool(dtype)):
        maps = list(model(x))
    generator = torch.Generator().manual_seed(2)
    grads = [
        torch.randn(y.shape, generator=generator).to(y.device, y.dtype)
        for y in maps
    ]
    (grad,) = torch.autograd.grad(maps, next(model.parameters()), grads)
    return [*(y.detach() for y in maps), grad]


def check_compiled(
    models: Dict[str, nn.Module], xs: Dict[str, Tensor], precision: str
) -> None:
    """Compare compiled subjects with ours in float32, on its images.

    They run as they are measured, so that nothing is compiled twice.

    Raises:
        ValueError: where a relative error is over ``COMPILED_ERROR``, and
            over four times that of ours in the same precision.
    """
    compiled = [name for name in models if is_compiled(name)]
    if not compiled:
        return
    exact = trained(models[OURS], xs[OURS], 'float32')
    own = trained(models[OURS], xs[OURS], precision)
    bounds = [
        max(4 * _error(y, z), COMPILED_ERROR) for y, z in zip(own, exact)
    ]
    for name in compiled:
        found = trained(models[name], xs[name], precision)
        for i, (y, z, bound) in enumerate(zip(found, exact, bounds)):
            if _error(y, z) > bound:
                raise ValueError(
                    f'{name} computes something else: relative error '
                    f'{_error(y, z):.1e} of output {i}, at most {bound:.1e}'
                )


def _error(value: Tensor, exact: Tensor) -> float:
    exact = exact.double()
    return ((value.double() - exact).norm() / exact.norm()).item()


def runner(
    model: nn.Module, x: Tensor, kind: str, args: Namespace
) -> Callable[[], None]:
    dtype = PRECISIONS[args.precision]
    autocast = torch.autocast(x.device.type, dtype, enabled=bool(dtype))

    def infer() -> None:
        with torch.inference_mode(), autocast:
            model(x)

    def train() -> None:
        with autocast:
            maps = list(model(x))
        torch.autograd.backward(maps, [torch.ones_like(y) for y in maps])
        for param in model.parameters():
            param.grad = None

    return {'inference': infer, 'training': train}[kind]


def saved_bytes(model: nn.Module, x: Tensor, args: Namespace) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    dtype = PRECISIONS[args.precision]
    autocast = torch.autocast(x.device.type, dtype, enabled=bool(dtype))

    def run() -> object:
        with autocast:
            return model(x)

    return bytes_kept(model, x, run)


def bytes_kept(model: nn.Module, x: Tensor, run: Callable[[], object]) -> int:
    """Bytes kept for the backward pass of what ``run`` computes.

    Each storage counts once; parameters and images do not.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    own.add(x.untyped_storage().data_ptr())
    kept: Dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    del result
    return sum(kept.values())


def floor_ms(source: nn.Module, x: Tensor, args: Namespace) -> float:
    """Time of the multiply-adds alone at the rate of one large product."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        source(x)
    dtype = PRECISIONS[args.precision] or torch.float32
    a = torch.randn(1, 384, 64, 64, dtype=dtype, device=x.device)
    a = a.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(1536, 384, 1, 1, dtype=dtype, device=x.device)
    weight = weight.contiguous(memory_format=torch.channels_last)
    times = rounds({'product': lambda: F.conv2d(a, weight)}, 7)['product']
    rate = 2 * a.numel() * 1536 / min(times)
    return counter.get_total_flops() / rate


def _check_arguments(args: Namespace) -> None:
    for name, value, known in (
        ('precision', [args.precision], tuple(PRECISIONS)),
        ('passes', args.passes, PASSES),
    ):
        for item in value:
            if item not in known:
                raise ValueError(f'{name} must be of {known}, got {item!r}')


def subjects_of(args: Namespace, **options: object) -> Tuple:
    """Our backbone, all subjects with its weights, checked."""
    _check_arguments(args)
    source = ours(args.version, args.arch, **options).to(args.device)
    models, missing = build(args.subjects or DEFAULT, source)
    for name, reason in missing.items():
        print(f'left out: {name}: {reason}', flush=True)
    if OURS not in models:
        raise ValueError(f'subjects must contain {OURS!r}: ratios are to it')
    models = {k: m.to(args.device) for k, m in models.items()}
    check(models, source, args)
    return source, models


def backbone_rows(args: Namespace) -> Iterator[Row]:
    """Each subject's inference, or forward and backward pass."""
    source, models = subjects_of(args)
    shape = (args.batch, 3, *args.size)
    xs = {name: images(args, name, shape) for name in models}
    check_compiled(models, xs, args.precision)
    lowest = floor_ms(source, xs[OURS], args)
    memory = {
        name: saved_bytes(model, xs[name], args) / 2**20
        for name, model in models.items()
        if 'training' in args.passes and not is_compiled(name)
    }
    about = dict(
        model=f'V{args.version} {args.arch}',
        images='x'.join(map(str, shape)),
        precision=args.precision,
    )
    for kind in args.passes:
        runs = {k: runner(m, xs[k], kind, args) for k, m in models.items()}
        rows = compare(rounds(runs, args.repeats), OURS)
        floor = lowest * (3 if kind == 'training' else 1)
        for row in sorted(rows, key=lambda row: row['ms']):
            peak = peak_mib(runs[row['subject']], args.device)
            saved = memory.get(row['subject'], 0) * (kind == 'training')
            yield dict(
                **about,
                mode=kind,
                **row,
                floor_percent=round(100 * floor / row['ms']),
                peak_mib=f'{peak:.0f}',
                saved_mib=round(saved) or '',
            )
