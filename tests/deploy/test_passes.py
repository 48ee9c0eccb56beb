"""One pass for GRN in an exported graph, and the same numbers."""

import numpy as np
import pytest
from exported import UPERNET, build, config, need_extras

need_extras()

import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mmconvnext.deploy import export, passes  # noqa: E402


def graph(
    total: tuple = ('x', 'xf'), *more: onnx.NodeProto
) -> onnx.ModelProto:
    """``x + x f + beta`` with the factor of a GRN, and what else is given."""
    value = helper.make_tensor_value_info
    names = ('x', 'gamma', 'beta')
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, [4], [0.1, 2, -3, 0.5])
        for name in names[1:]
    ]
    nodes = [
        helper.make_node('ReduceL2', ['x'], ['g'], axes=[0]),
        helper.make_node('ReduceMean', ['g'], ['mean'], axes=[1]),
        helper.make_node('Div', ['g', 'mean'], ['n']),
        helper.make_node('Mul', ['gamma', 'n'], ['gn']),
        helper.make_node('Cast', ['gn'], ['f'], to=TensorProto.FLOAT),
        helper.make_node('Mul', ['x', 'f'], ['xf']),
        *more,
        helper.make_node('Add', list(total), ['sum']),
        helper.make_node('Add', ['sum', 'beta'], ['y']),
    ]
    body = helper.make_graph(
        nodes,
        'grn',
        [value('x', TensorProto.FLOAT, ['n', 4])],
        [value('y', TensorProto.FLOAT, ['n', 4])],
        tensors,
    )
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid('', 17)], ir_version=8
    )
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    x = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)
    return ReferenceEvaluator(model).run(None, {'x': x})[0]


def kinds(model: onnx.ModelProto) -> list:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize('total', [('x', 'xf'), ('xf', 'x')])
def test_grn_is_one_product_and_one_sum(total: tuple) -> None:
    wanted = run(graph(total))
    found = passes.factor_grn(graph(total))
    onnx.checker.check_model(found)
    assert kinds(found)[-3:] == ['Add', 'Mul', 'Add']
    assert found.graph.node[-3].input[0] == 'f'
    np.testing.assert_allclose(run(found), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    'model',
    [
        graph(('x', 'xx'), helper.make_node('Mul', ['x', 'x'], ['xx'])),
        graph(('x', 'xg'), helper.make_node('Mul', ['x', 'gamma'], ['xg'])),
        graph(('x', 'xf'), helper.make_node('Relu', ['xf'], ['read'])),
        graph(('x', 'x')),
    ],
    ids=['a square', 'no norm', 'read twice', 'no product'],
)
def test_nothing_else_changes(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert passes.factor_grn(model).SerializeToString() == before


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_every_block_of_a_model(tmp_path, precision: str) -> None:
    cfg = config(UPERNET[2])
    out = tmp_path / 'model.onnx'
    export.export(build(cfg), cfg, out, precision)
    found = onnx.load(str(out))
    norms = [node for node in found.graph.node if node.op_type == 'ReduceL2']
    above = [node for node in found.graph.node if 'above_one' in node.name]
    assert len(norms) == len(above) == 4
