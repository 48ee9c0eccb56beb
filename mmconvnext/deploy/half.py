"""Proof that a float16 graph does not overflow where ConvNeXt did.

GRN sums squares over a whole map. In float16 the sum of a detector's maps is
infinite, and everything after it is NaN: the model finds nothing, without an
error. Runtimes on a CPU compute float16 in float32 and hide it, so the graph
itself is read.
"""

from __future__ import annotations

from typing import Any, Dict, List

# Operators that add up many numbers.
SUMS = (
    'GlobalAveragePool',
    'GroupNormalization',
    'InstanceNormalization',
    'LpNormalization',
    'ReduceL1',
    'ReduceL2',
    'ReduceLogSum',
    'ReduceLogSumExp',
    'ReduceMean',
    'ReduceProd',
    'ReduceSum',
    'ReduceSumSquare',
)
# Normalise in the type that this attribute names; 1 is float32.
STASHES = ('LayerNormalization', 'GroupNormalization')


def faults(graph: Any) -> List[str]:
    """Name every node that adds up in float16.

    Args:
        graph: an ONNX model without functions.
    """
    import onnx

    half = onnx.TensorProto.FLOAT16
    types = _types(onnx.shape_inference.infer_shapes(graph).graph)
    found = []
    for node in graph.graph.node:
        if types.get(node.input[0] if node.input else '') != half:
            continue
        where = f'{node.op_type} {node.name or node.output[0]}'
        if node.op_type in STASHES:
            stash = {a.name: a.i for a in node.attribute}.get('stash_type', 1)
            if stash != onnx.TensorProto.FLOAT:
                found.append(f'{where}: stash_type is {stash}, not float32')
        elif node.op_type in SUMS:
            found.append(f'{where}: adds up in float16')
    return found


def verify(graph: Any) -> None:
    """Refuse a graph that could overflow.

    Raises:
        ValueError: names the nodes.
    """
    found = faults(graph)
    if found:
        raise ValueError(
            f'the float16 graph could overflow: {"; ".join(found[:5])}'
            f'{" ..." if len(found) > 5 else ""}; export in fp32'
        )


def _types(graph: Any) -> Dict[str, int]:
    """Element type by name of a tensor."""
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    types.update({t.name: t.data_type for t in graph.initializer})
    return types
