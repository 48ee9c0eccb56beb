"""Convert a ConvNeXt checkpoint to another library's names, or look at it.

    python tools/convert_checkpoint.py IN --inspect
    python tools/convert_checkpoint.py IN OUT --to timm --check
    python tools/convert_checkpoint.py IN OUT --to native --whole

IN is a path, https://, hf-hub:// or timm:// source in any format. OUT ends
in .pth, .pt, .bin or .safetensors and is written whole or not at all.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor, nn

from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint
from mmconvnext.archs import ARCHS
from mmconvnext.checkpoint import EXPORTS, CheckpointError, Found, weights_io

TOLERANCE = 2e-5  # of float32 through the deepest published backbone
Features = Callable[[Tensor], List[Tensor]]


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='IN')
    parser.add_argument('target', metavar='OUT', nargs='?')
    parser.add_argument('--to', choices=list(EXPORTS))
    parser.add_argument(
        '--inspect', action='store_true', help='say what IN is; write nothing'
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='build the backbone of IN and the model of OUT (timm and '
        'transformers: the real one) and compare their features',
    )
    parser.add_argument(
        '--whole',
        action='store_true',
        help='keep neck and heads of an mmdet 2 or mmseg 0.x file (native)',
    )
    parser.add_argument('--ema', action='store_true', help='averaged weights')
    parser.add_argument('--prefix', help='of the copy that is meant')
    parser.add_argument('--sha256', help='of IN, 8 digits or more')
    args = parser.parse_args(argv)
    if not args.inspect and not (args.target and args.to):
        parser.error('OUT and --to are needed, or --inspect')
    if args.whole and (args.to != 'native' or args.check or args.prefix):
        parser.error('--whole goes with --to native alone')
    return args


def ours(found: Found) -> nn.Module:
    kind = {1: ConvNeXt, 2: ConvNeXtV2}[found.version]
    arch: Any = found.arch
    if arch not in ARCHS or found.version not in ARCHS[arch].versions:
        arch = dict(depths=found.depths, dims=found.dims)
    return kind(arch).eval()


def stage_features(model: nn.Module, image: Tensor) -> List[Tensor]:
    features = []
    for down, stage in zip(model.downsample_layers, model.stages):
        image = stage(down(image))
        features.append(image)
    return features


def _library(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(
            f'--check needs {package}: pip install {package} ({error})'
        ) from error


def build_ours(found: Found, state: Dict[str, Tensor]) -> Features:
    model = ours(found)
    checkpoint.load(model, state)
    return lambda image: stage_features(model, image)


def build_timm(found: Found, state: Dict[str, Tensor]) -> Features:
    arch = ARCHS.get(found.arch)
    model = (
        _library('timm.models.convnext', 'timm')
        .ConvNeXt(
            depths=found.depths,
            dims=found.dims,
            use_grn=found.version == 2,
            ls_init_value=None if found.version == 2 else 1e-6,
            conv_mlp=found.arch in EXPORTS['timm'].conv_mlp,
            norm_eps=arch.eps if arch else 1e-6,
            num_classes=0,
        )
        .eval()
    )
    model.load_state_dict(state, strict=True)
    return lambda image: model.forward_intermediates(
        image, intermediates_only=True
    )


def build_transformers(found: Found, state: Dict[str, Tensor]) -> Features:
    library = _library('transformers', 'transformers')
    name = {1: 'ConvNext', 2: 'ConvNextV2'}[found.version]
    dense = any(key.startswith('hidden_states_norms') for key in state)
    stages = [f'stage{n}' for n in range(1, 5)]
    config = getattr(library, name + 'Config')(
        depths=list(found.depths),
        hidden_sizes=list(found.dims),
        **(dict(out_features=stages) if dense else {}),
    )
    kind = name + ('Backbone' if dense else 'Model')
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
    'native': build_ours,
    'mmpretrain': build_ours,
    'timm': build_timm,
    'transformers': build_transformers,
}


@torch.no_grad()
def check(source: Any, found: Found, state: Dict[str, Tensor], to: str) -> str:
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
    return f'{"check":<11}features equal within {max(errors):.1e}, by {by}'


def dataset_meta(raw: Any) -> Dict[str, Any]:
    """Keep what a host needs of ``meta``, under the names of mmengine."""
    meta = raw.get('meta') or {}
    names = {'CLASSES': 'classes', 'PALETTE': 'palette'}
    known = {new: meta[old] for old, new in names.items() if old in meta}
    return {'dataset_meta': meta.get('dataset_meta', known)}


def wrapped(state: Dict[str, Tensor], to: str, target: str) -> Any:
    name, prefix = EXPORTS[to].wrap
    state = {prefix + key: value for key, value in state.items()}
    flat = not name or target.endswith('.safetensors')
    return state if flat else {name: state}


def inspect(args: argparse.Namespace, raw: Any) -> None:
    found = checkpoint.detect(raw, args.ema, args.prefix)
    rows = [
        ('checkpoint', args.source),
        ('is', str(found)),
        ('prefix', found.prefix or '(none)'),
        ('licence', checkpoint.licence_of(args.source, found)),
    ]
    print('\n'.join(f'{name:<11}{text}' for name, text in rows))


def main(argv: Optional[List[str]] = None) -> None:
    args = parse_args(argv)
    raw = weights_io.read(args.source, args.sha256)
    if args.inspect:
        inspect(args, raw)
        return
    if args.whole:
        state, account = checkpoint.export_detector(raw, args.ema)
        out: Any = {'meta': dataset_meta(raw), 'state_dict': state}
    else:
        state, account = checkpoint.export_with_account(
            raw, args.to, args.ema, args.prefix
        )
        out = wrapped(state, args.to, args.target)
    account.source = args.source
    print(account)
    if args.check:
        source = ours(account.found)
        checkpoint.load(source, raw, args.ema, args.prefix)
        print(check(source, account.found, state, args.to))
    weights_io.write(out, args.target)
    print(f'{"file":<11}{args.target}')


if __name__ == '__main__':
    try:
        main()
    except CheckpointError as error:
        sys.exit(f'convert_checkpoint.py: {re.sub(" +", " ", str(error))}')
