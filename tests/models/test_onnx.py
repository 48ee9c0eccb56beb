"""Exported to ONNX, both versions are plain operators and compute the same.

By either exporter of torch: the one that traces, and the one of Dynamo.
"""

import warnings
from pathlib import Path

import masked
import pytest
import torch
from op_cases import error
from torch import Tensor

from mmconvnext import ConvNeXt, ConvNeXtV2, ops

REASON = 'ONNX is an extra: optional.txt'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)
pytest.importorskip('onnxscript', reason=REASON)

VERSIONS = {1: ConvNeXt, 2: ConvNeXtV2}
NAMES = [f'map{i}' for i in range(4)]
# The default domain, by its two names, and functions of the exporter.
PLAIN = {'', 'ai.onnx', 'pkg.onnxscript.torch_lib.common'}


def backbone(version: int) -> torch.nn.Module:
    return masked.randomise(VERSIONS[version](masked.TINY)).eval()


def export(model: torch.nn.Module, path: Path, dynamo: bool) -> None:
    """Write the graph for images of any size from an example of 64 x 96."""
    sizes = {0: 'n', 2: 'h', 3: 'w'}
    if dynamo:
        dims = dict.fromkeys(sizes, torch.export.Dim.DYNAMIC)
        axes = dict(dynamic_shapes=(dims,))
    else:
        axes = dict(dynamic_axes=dict.fromkeys(('image', *NAMES), sizes))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the older one is deprecated
        torch.onnx.export(
            model,
            (torch.randn(2, 3, 64, 96),),
            str(path),
            input_names=['image'],
            output_names=NAMES,
            dynamo=dynamo,
            **axes,
        )


def nodes_of(path: Path) -> list:
    """The nodes of the graph, and of the functions it may call."""
    model = onnx.load(str(path))
    nodes = [node for part in model.functions for node in part.node]
    return [*model.graph.node, *nodes]


def run(path: Path, x: Tensor) -> list:
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    found = session.run(NAMES, {'image': x.numpy()})
    return [torch.from_numpy(y) for y in found]


@pytest.mark.parametrize('dynamo', [False, True], ids=['trace', 'dynamo'])
@pytest.mark.parametrize('version', [1, 2])
def test_exported_file_computes_the_same(
    version: int, dynamo: bool, tmp_path: Path
) -> None:
    model, path = backbone(version), tmp_path / 'model.onnx'
    with ops.use('fused'):  # what cannot be exported is not, even if forced
        export(model, path, dynamo)
    nodes = nodes_of(path)
    assert {node.domain for node in nodes} <= PLAIN
    # The stem, three between stages, one of each block.
    assert sum(node.op_type == 'Conv' for node in nodes) == 4 + 5
    # As exported; one image of odd maps; a last map of one position.
    for shape in ((2, 3, 64, 96), (1, 3, 96, 160), (3, 3, 32, 32)):
        x = torch.randn(shape)
        with torch.no_grad():
            exact = model(x)
        for found, wanted in zip(run(path, x), exact):
            assert found.shape == wanted.shape
            # Other kernels: their float32 adds up in another order.
            assert error(found, wanted.double()) < 1e-4
