"""Post-training quantisation of a file to int8, by ONNX Runtime's tools.

Weights (per channel) and maps of convolutions and products become int8
around QuantizeLinear and DequantizeLinear nodes, which both runtimes fuse;
norms, GRN and the arithmetic of boxes stay as they are. Maps are written as
the runtime multiplies fastest (``MAPS``); either runs both.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set

import numpy as np

from .. import files
from . import geometry
from .description import Description
from .export import write
from .runner import load

KINDS = ('Conv', 'MatMul', 'Gemm')
# Runtime: type of the maps, and whether their zero is 0. Each multiplies its
# own fastest: tools/README.md has the times.
MAPS = {'onnxruntime': ('QUInt8', False), 'openvino': ('QInt8', True)}


def quantize(
    source: Path,
    images: Iterable[Path],
    out: Path,
    runtime: str = 'onnxruntime',
) -> Description:
    """Write the int8 version of a file.

    Args:
        source: fp32 file.
        images: to calibrate on, as the model will see.
        out: file to write; appears when it is whole.
        runtime: in ``MAPS``, for which it is to be fast.

    Raises:
        FileNotFoundError: without the file.
        ValueError: for a file that is not fp32, or an unknown runtime.
    """
    check(source)
    if runtime not in MAPS:
        raise ValueError(
            f'runtime must be one of {", ".join(MAPS)}, got {runtime!r}'
        )
    maps, symmetric = MAPS[runtime]
    import onnx
    from onnxruntime import quantization

    about = load(source).description
    graph = onnx.load(str(source))
    with files.whole_file(out) as path:
        with _quiet():
            quantization.quantize_static(
                graph,
                str(path),
                reader(about, images),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                activation_type=quantization.QuantType[maps],
                nodes_to_quantize=with_weights(graph),
                op_types_to_quantize=list(KINDS),
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={'ActivationSymmetric': symmetric},
            )
        about = about._replace(precision='int8')
        graph = onnx.load(str(path))
        sort(graph.graph)
        write(graph, about, path)
    return about


def check(source: Path) -> None:
    """Refuse what cannot be quantised, before any work.

    Raises:
        FileNotFoundError: without the file.
        ValueError: for a file that is not fp32, or without the packages.
    """
    about = load(source).description
    if about.precision != 'fp32':
        raise ValueError(
            f'{source} is {about.precision}: quantise a file that was '
            f'exported with --precision fp32'
        )
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'quantisation needs {error.name}: pip install -r '
            f'requirements/deploy.txt'
        ) from None


def sort(graph: Any) -> None:
    """Put every node after those that it reads, as ONNX demands.

    ONNX Runtime's tools sort by the inputs of nodes; what the body of a Loop
    (soft NMS) reads of the graph around it is no input of the Loop.
    """
    made = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), []
    while waiting:
        rest = []
        for node in waiting:
            if reads(node) & made:
                rest.append(node)
            else:
                ordered.append(node)
                made -= set(node.output)
        assert len(rest) < len(waiting), 'a graph has no cycle'
        waiting = rest
    del graph.node[:]
    graph.node.extend(ordered)


def reads(node: Any) -> Set[str]:
    """Names that a node reads, in itself or in its subgraphs."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= reads(inner)
    return names


def with_weights(graph: Any) -> List[str]:
    """Name the convolutions and products with constant weights.

    The others are sums over maps (pooling), where int8 saves nothing.
    """
    constant = {tensor.name for tensor in graph.graph.initializer}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type in KINDS and node.input[1] in constant
    ]


def inputs(
    about: Description, images: Iterable[Path]
) -> Iterator[Dict[str, np.ndarray]]:
    """Yield what goes into a file: images after the resize, or a window."""
    for path in images:
        image = geometry.fit_image(files.read_image(path), about.resize)
        size = image.shape[:2]
        if about.window:
            rows, columns = (
                slice(max((side - part) // 2, 0), (side + part) // 2)
                for side, part in zip(size, about.window)
            )
            image = image[rows, columns]
        batch = image[..., ::-1].transpose(2, 0, 1)[None]
        yield {'image': np.ascontiguousarray(batch)}


def reader(about: Description, images: Iterable[Path]) -> Any:
    """What ONNX Runtime's calibration asks for one input after another."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = inputs(about, images)

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            return next(self._rows, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep hints to preprocess the model, and logs of every node, away."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.root.setLevel(level)
