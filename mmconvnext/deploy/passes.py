"""Fewer passes of a runtime over the widest maps.

Global response normalisation is written ``a + a f + beta`` with one factor
``f = gamma N`` for each channel. Runtimes read and write the whole map for
the product, and once more for the sums. ``a (1 + f) + beta`` is one pass.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Optional


def factor_grn(graph: Any) -> Any:
    """Write ``a + a f`` as ``a (1 + f)`` wherever f is the factor of a GRN.

    Args:
        graph: an ONNX model; changed in place and returned.
    """
    from onnx import helper

    nodes = graph.graph.node
    made = {name: node for node in nodes for name in node.output}
    uses = Counter(name for node in nodes for name in node.input)
    constants = {tensor.name for tensor in graph.graph.initializer}
    for total in list(nodes):
        product = _product(total, made, uses)
        if product is None:
            continue
        a = next(name for name in total.input if name != product.output[0])
        (factor,) = (name for name in product.input if name != a)
        cast = made.get(factor)
        if cast is None or not _is_grn(cast, made, constants):
            continue
        kind = next(x.i for x in cast.attribute if x.name == 'to')
        one, above = f'{factor}_one', f'{factor}_above_one'
        graph.graph.initializer.append(
            helper.make_tensor(one, kind, [], [1.0])
        )
        added = helper.make_node('Add', [factor, one], [above], name=above)
        nodes.insert(list(nodes).index(product), added)
        product.input[:] = [a, above]
        # The product is the sum now.
        product.output[:] = total.output
        nodes.remove(total)
    return graph


def _product(
    total: Any, made: Dict[str, Any], uses: Dict[str, int]
) -> Optional[Any]:
    """``a f`` of a node ``a + a f``, where nothing else reads it."""
    if total.op_type != 'Add':
        return None
    for a, name in (total.input, reversed(total.input)):
        node = made.get(name)
        if node is None or node.op_type != 'Mul' or uses[name] > 1:
            continue
        if a in node.input and len({a, name, *node.input}) == 3:
            return node
    return None


def _is_grn(cast: Any, made: Dict[str, Any], constants: set) -> bool:
    """Whether a node casts ``gamma N`` to the type of the map."""
    if cast.op_type != 'Cast':
        return False
    factor = made.get(cast.input[0])
    if factor is None or factor.op_type != 'Mul':
        return False
    rest = [made.get(name) for name in factor.input if name not in constants]
    return len(rest) == 1 and rest[0] is not None and rest[0].op_type == 'Div'
