"""Write a whole model as ONNX: :func:`export`."""

from __future__ import annotations

import copy
import inspect
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from torch import nn

from .. import files
from . import half, meanings, operators, passes, preprocess, supported
from .classifier import ExportedClassifier
from .describe import describe
from .description import Description
from .detector import ExportedDetector
from .segmentor import ExportedSegmentor

PRECISIONS = ('fp32', 'fp16')
# Task to what is put around the model, and around its data preprocessor.
WRAPPERS = {
    'segmentation': (ExportedSegmentor, preprocess.of_segmentor),
    'detection': (ExportedDetector, preprocess.of_detector),
    'classification': (ExportedClassifier, preprocess.of_classifier),
}
# What is traced: not square, and large enough for a detector's top level.
EXAMPLE = (160, 192)
# One file of ONNX ends at 2 GiB; the graph needs some of it.
MOST_BYTES = 2**31 - 2**24


def export(
    model: nn.Module,
    cfg: Any,
    out: Path,
    precision: str = 'fp32',
    shape: Optional[Sequence[int]] = None,
) -> Description:
    """Write a trained model, from uint8 image to result, as one file.

    Args:
        model: of a host, or a classifier, with its weights, without
            SyncBN; unchanged.
        cfg: its config.
        out: ONNX file; appears when it is whole.
        precision: one of :data:`PRECISIONS`.
        shape: height and width that the file takes; None: any.

    Raises:
        ValueError: for what cannot be exported, by name, before any work;
            for a float16 graph that could overflow.
    """
    check(cfg, precision, shape)
    about = describe(cfg, precision, shape)
    module = wrap(model, cfg, precision)
    _check_bytes(module)
    with files.whole_file(out) as path:
        graph = trace(module, path, about.shape)
        if precision == 'fp16':
            half.verify(graph)
        write(graph, about, path)
    return about


def check(
    cfg: Any, precision: str = 'fp32', shape: Optional[Sequence[int]] = None
) -> None:
    """Refuse what cannot be exported, before any work.

    Raises:
        ValueError: names it, and what there is.
    """
    supported.check(cfg)
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision must be one of {", ".join(PRECISIONS)}, got '
            f'{precision!r}; int8: tools/quantize.py; bf16: a runtime '
            f'computes in it (--runtime openvino --precision bf16)'
        )
    if shape is not None and min(shape) < 32:
        raise ValueError(f'shape must be at least 32 x 32, got {shape}')
    if find_spec('onnx') is None:
        raise ValueError(
            'export needs onnx: pip install -r requirements/deploy.txt'
        )
    if not writes_opset():
        raise ValueError(
            f'export needs a torch that writes opset {operators.OPSET} of '
            f'ONNX, this is {torch.__version__}; a newer one reads the same '
            f'checkpoint'
        )


def writes_opset() -> bool:
    """Whether this torch can write the operators that files have."""
    name = f'torch.onnx.symbolic_opset{operators.OPSET}'
    return find_spec(name) is not None


def wrap(model: nn.Module, cfg: Any, precision: str = 'fp32') -> nn.Module:
    """Put what a file computes around a model."""
    kind, of_task = WRAPPERS[supported.check(cfg)]
    before = of_task(cfg['model']['data_preprocessor'])
    return kind(copy.deepcopy(model), before, precision == 'fp16').eval()


@torch.no_grad()
def trace(
    module: nn.Module, path: Path, shape: Optional[Sequence[int]] = None
) -> Any:
    """Trace a module that takes ``(N, 3, H, W)`` uint8; return ONNX.

    By torch's tracing exporter: on these models it takes seconds where the
    one of torch.export, which reasons on symbolic sizes, takes a minute.

    Args:
        module: with ``outputs``, their names, and ``maps``, height and width
            among the dimensions of those that have the image's.
        path: a file to work in.
        shape: height and width to fix.
    """
    import onnx

    operators.register()
    size = tuple(shape) if shape else EXAMPLE
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with warnings.catch_warnings():
        # That it is the older exporter, and that numbers become constants:
        # files are compared with PyTorch at other sizes instead.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module,
            (image,),
            str(path),
            input_names=['image'],
            output_names=list(module.outputs),
            dynamic_axes=_axes(module, shape is None),
            opset_version=operators.OPSET,
            **_exporter(),
        )
    return passes.factor_grn(meanings.expand(onnx.load(str(path))))


def write(graph: Any, about: Description, path: Path) -> None:
    """Write an ONNX model with its description."""
    import onnx

    del graph.metadata_props[:]
    for key, value in about.to_metadata().items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _exporter() -> dict:
    """The tracing exporter, which older versions have alone."""
    known = inspect.signature(torch.onnx.export).parameters
    return {'dynamo': False} if 'dynamo' in known else {}


def _axes(module: nn.Module, any_size: bool) -> dict:
    axes = {name: {0: 'batch'} for name in ('image', *module.outputs)}
    if any_size:
        sides = ('height', 'width')
        axes['image'].update(zip((2, 3), sides))
        for name, places in module.maps.items():
            axes[name].update(zip(places, sides))
    return axes


def _check_bytes(module: nn.Module) -> None:
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    if size > MOST_BYTES:
        raise ValueError(
            f'the model has {size / 2**30:.1f} GiB of weights, one ONNX file '
            f'holds 2 GiB: export with --precision fp16, or a smaller model'
        )
