"""What the operators of :mod:`.operators` mean, in ONNX's text syntax.

The exporter writes their names; :func:`expand` puts the meaning in place, so
that a file has operators of the default domain only.
"""

from __future__ import annotations

from typing import Any, Tuple

from .operators import DOMAIN, METHODS

# x1, y1, x2, y2 may be given to NonMaxSuppression as y1, x1, y2, x2: overlap
# does not know which axis is which. -0.5 parts valid scores from INVALID.
NMS_KEEP = """
<opset_import: ["" : 20], domain: "mmconvnext_deploy">
NmsKeep <iou: float> (boxes, scores) => (keep) {
    one_class = Constant <value_ints: ints = [1]> ()
    rows = Unsqueeze (scores, one_class)
    all = Constant <value_ints: ints = [1073741824]> ()
    iou_limit = Constant <value_float: float = @iou> ()
    iou_limits = Reshape (iou_limit, one_class)
    score_limits = Constant <value_floats: floats = [-0.5]> ()
    found = NonMaxSuppression (boxes, rows, all, iou_limits, score_limits)
    columns = Constant <value_ints: ints = [0, 2]> ()
    places = Gather <axis: int = 1> (found, columns)
    shape = Shape (scores)
    zeros = ConstantOfShape (shape)
    first = Constant <value_ints: ints = [0]> ()
    found_shape = Shape (found)
    count = Gather (found_shape, first)
    ones = ConstantOfShape <value: tensor = float[1] {1.0}> (count)
    keep = ScatterND (zeros, places, ones)
}
"""

# Carried from pick to pick: the scores that are left. What was picked, or is
# below the limit, gets -1 and never wins again.
SOFT_NMS = """
<opset_import: ["" : 20], domain: "mmconvnext_deploy">
SoftNms{kind} <count: int, iou: float, sigma: float, min_score: float>
(boxes, scores) => (picks) {{
    count = Constant <value_int: int = @count> ()
    go = Constant <value: tensor = bool {{1}}> ()
{setup}
    lowest = Constant <value_float: float = @min_score> ()
    zero = Constant <value_float: float = 0.0> ()
    one = Constant <value_float: float = 1.0> ()
    gone = Constant <value_float: float = -1.0> ()
    one_i = Constant <value_ints: ints = [1]> ()
    last_i = Constant <value_ints: ints = [-1]> ()
    x1, y1, x2, y2 = Split <axis: int = -1, num_outputs: int = 4> (boxes)
    w = Sub (x2, x1)
    h = Sub (y2, y1)
    area = Mul (w, h)
    indices = Shape (scores)
    length = Gather (indices, one_i)
    length_s = Squeeze (length)
    start = Constant <value_int: int = 0> ()
    step = Constant <value_int: int = 1> ()
    range = Range (start, length_s, step)
    left, picked = Loop (count, go, scores) <body = pick (
        int64 i, bool on, float[n, b] rest
    ) => (bool on_out, float[n, b] next, float[n, 2] pick_out) {{
        on_out = Identity (on)
        best, at = TopK <axis: int = 1> (rest, one_i)
        at_box = Unsqueeze (at, last_i)
        bx1 = GatherElements <axis: int = 1> (x1, at_box)
        by1 = GatherElements <axis: int = 1> (y1, at_box)
        bx2 = GatherElements <axis: int = 1> (x2, at_box)
        by2 = GatherElements <axis: int = 1> (y2, at_box)
        barea = GatherElements <axis: int = 1> (area, at_box)
        ix1 = Max (x1, bx1)
        iy1 = Max (y1, by1)
        ix2 = Min (x2, bx2)
        iy2 = Min (y2, by2)
        iw_raw = Sub (ix2, ix1)
        ih_raw = Sub (iy2, iy1)
        iw = Max (iw_raw, zero)
        ih = Max (ih_raw, zero)
        inter = Mul (iw, ih)
        both = Add (barea, area)
        union = Sub (both, inter)
        ratio = Div (inter, union)
        some = Greater (union, zero)
        overlap_3 = Where (some, ratio, zero)
        overlap = Squeeze (overlap_3, last_i)
{weight}
        lower = Mul (rest, weight)
        low = Less (lower, lowest)
        picked_here = Equal (range, at)
        out = Or (low, picked_here)
        next = Where (out, gone, lower)
        at_f = Cast <to: int = 1> (at)
        pick_out = Concat <axis: int = 1> (at_f, best)
    }}>
    picks = Transpose <perm: ints = [1, 0, 2]> (picked)
}}
"""
LIMIT = '    iou_limit = Constant <value_float: float = @iou> ()'
# Kind: what it needs before the loop, and the factor of a score in it.
WEIGHTS = {
    'naive': (
        LIMIT,
        """
        near = GreaterOrEqual (overlap, iou_limit)
        weight = Where (near, zero, one)
""",
    ),
    'linear': (
        LIMIT,
        """
        near = GreaterOrEqual (overlap, iou_limit)
        rest_of_one = Sub (one, overlap)
        weight = Where (near, rest_of_one, one)
""",
    ),
    'gaussian': (
        '    width = Constant <value_float: float = @sigma> ()',
        """
        square = Mul (overlap, overlap)
        scaled = Div (square, width)
        exponent = Neg (scaled)
        weight = Exp (exponent)
""",
    ),
}

ROI_ALIGN = """
<opset_import: ["" : 20], domain: "mmconvnext_deploy">
RoiAlign <height: int, width: int, scale: float, ratio: int, mode: string>
(x, rois) => (y) {
    sizes = Constant <value_ints: ints = [1, 4]> ()
    image_f, boxes_f = Split <axis: int = 1> (rois, sizes)
    axis = Constant <value_ints: ints = [1]> ()
    image_1 = Squeeze (image_f, axis)
    image = Cast <to: int = 7> (image_1)
    y = RoiAlign <
        output_height: int = @height,
        output_width: int = @width,
        spatial_scale: float = @scale,
        sampling_ratio: int = @ratio,
        coordinate_transformation_mode: string = @mode
    > (x, boxes_f, image)
}
"""


def functions() -> Tuple[str, ...]:
    """The operators as functions, in ONNX's text syntax."""
    soft = [
        SOFT_NMS.format(
            kind=name.capitalize(),
            setup=WEIGHTS[name][0],
            weight=WEIGHTS[name][1],
        )
        for name in METHODS
    ]
    return (NMS_KEEP, ROI_ALIGN, *soft)


def expand(model: Any) -> Any:
    """Replace the operators in an ONNX model by their meaning."""
    from onnx import inliner, parser

    used = {n.op_type for n in model.graph.node if n.domain == DOMAIN}
    known = [parser.parse_function(text) for text in functions()]
    model.functions.extend(f for f in known if f.name in used)
    model = inliner.inline_local_functions(model)
    kept = [entry for entry in model.opset_import if entry.domain == '']
    del model.opset_import[:]
    model.opset_import.extend(kept)
    fold_identities(model)
    return model


def fold_identities(model: Any) -> None:
    """Give every node the weight itself, not an Identity of it.

    The exporter stores equal weights once; what quantises looks for weights
    at the inputs of a node.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    same = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == 'Identity' and node.input[0] in weights
    }
    kept = [node for node in graph.node if node.output[0] not in same]
    for node in kept:
        names = [same.get(name, name) for name in node.input]
        node.input[:] = names
    del graph.node[:]
    graph.node.extend(kept)
