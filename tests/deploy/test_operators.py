"""The operators' meaning in ONNX equals mmcv's operators."""

from typing import Any, Sequence

import exported
import numpy as np
import pytest
import torch
from torch import Tensor

exported.need_extras()
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from mmconvnext import mmcv_ops  # noqa: E402
from mmconvnext.deploy import meanings, operators  # noqa: E402

mmcv_ops.install()
BOXES, SCORES = ('boxes', ['g', 'b', 4]), ('scores', ['g', 'b'])


def run(name: str, inputs: Sequence[tuple], *feeds: Tensor, **options: Any):
    """Run a graph of one operator."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = [row[0] for row in inputs]
    node = helper.make_node(
        name, names, ['y'], domain=operators.DOMAIN, **options
    )
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info(n, kind, dims) for n, dims in inputs],
        [helper.make_tensor_value_info('y', kind, None)],
    )
    sets = [('', operators.OPSET), (operators.DOMAIN, 1)]
    model = meanings.expand(
        helper.make_model(
            graph,
            ir_version=10,
            opset_imports=[helper.make_opsetid(*row) for row in sets],
        )
    )
    assert {node.domain for node in model.graph.node} == {''}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = session.run(None, dict(zip(names, (x.numpy() for x in feeds))))
    return torch.from_numpy(found[0])


def boxes_and_scores(kind: str) -> tuple:
    """Crowded boxes; ``kind`` says which of them take part."""
    torch.manual_seed(0)
    corner = torch.rand(3, 90, 2) * 60
    boxes = torch.cat([corner, corner + torch.rand(3, 90, 2) * 60], -1)
    scores = torch.rand(3, 90)
    if kind == 'some':
        scores[scores < 0.4] = operators.INVALID
    if kind == 'none in one':
        scores[1] = operators.INVALID
        boxes[1] = 0
    if kind == 'none':
        scores[:] = operators.INVALID
    return boxes, scores


KINDS = ['all', 'some', 'none in one', 'none']


# Not of equal scores: which of them mmcv takes first is not defined.
@pytest.mark.parametrize('kind', KINDS)
def test_nms_keeps_what_mmcv_keeps(kind: str) -> None:
    boxes, scores = boxes_and_scores(kind)
    wanted = operators.nms_keep(boxes, scores, 0.5)
    found = run('NmsKeep', (BOXES, SCORES), boxes, scores, iou=0.5)
    assert torch.equal(found, wanted)
    assert 0 < wanted.mean() < 1 or kind == 'none'


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('method', operators.METHODS)
@pytest.mark.parametrize('min_score', [1e-3, 0.3])
def test_soft_nms_picks_what_mmcv_picks(
    min_score: float, method: str, kind: str
) -> None:
    boxes, scores = boxes_and_scores(kind)
    options = dict(iou=0.5, sigma=0.5, min_score=min_score)
    wanted = operators.soft_nms(boxes, scores, 40, method, **options)
    found = run(
        f'SoftNms{method.capitalize()}',
        (BOXES, SCORES),
        boxes,
        scores,
        count=40,
        **options,
    )
    real = wanted[..., 1] >= 0
    assert torch.equal(found[..., 1] >= 0, real)
    torch.testing.assert_close(found[real], wanted[real])
    assert real.any() or kind == 'none'


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_pools_what_mmcv_pools(ratio: int, aligned: bool) -> None:
    torch.manual_seed(0)
    x, corner = torch.randn(2, 8, 30, 41), torch.rand(20, 2) * 80
    image = torch.randint(0, 2, (20, 1)).float()
    rois = torch.cat([image, corner, corner + torch.rand(20, 2) * 70 + 1], 1)
    options = dict(height=7, width=5, scale=0.25, ratio=ratio)
    wanted = operators.roi_align(x, rois, *options.values(), aligned)
    mode = 'half_pixel' if aligned else 'output_half_pixel'
    inputs = ('x', ['n', 8, 'h', 'w']), ('rois', ['r', 5])
    found = run('RoiAlign', inputs, x, rois, mode=mode, **options)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
