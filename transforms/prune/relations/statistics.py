"""Normalisations written out in small operators: sums and means that only normalise what they sum.

Exporters write LayerNormalization as ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt and Div, with
ReduceSum times 1/C for a mean, or with E[x^2] - E[x]^2 for the variance. A reduction is such a
statistic if all that is computed from it, by arithmetic on values without the reduced axes, ends
in arithmetic on an array of the reduced shape: it is laid over the channels again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant_array, only_consumer
from trimton.transforms.graph.shapes import known_dims

REDUCTIONS = frozenset({"ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
_ARITHMETIC = """
    Abs Add Cast Clip Div Expand Identity Max Min Mul Neg Pow Reciprocal Reshape Sqrt Squeeze Sub
    Unsqueeze
"""
_BETWEEN = frozenset(_ARITHMETIC.split())
_LAID_OVER = frozenset({"Add", "Div", "Mul", "Sub"})
_SAME = 1e-3

Dims = Sequence[int | None]


def is_statistic(reduction: ir.Node) -> bool:
    """Whether ``reduction`` only normalises what it sums; shapes must have been inferred."""
    data, result = reduction.inputs[0], reduction.outputs[0]
    whole, small = known_dims(data), known_dims(result)
    if reduction.op_type not in REDUCTIONS or reduction.domain or whole is None or small is None:
        return False
    seen: set[int] = set()
    waiting = [result]
    while waiting:
        value = waiting.pop()
        if value.is_graph_output() or not value.uses():
            return False
        for node, index in value.uses():
            dims = known_dims(node.outputs[0])
            if node.op_type not in _BETWEEN or node.domain or dims is None:
                return False
            if tuple(dims) == tuple(whole) and node.op_type in _LAID_OVER:
                continue
            is_operand = index == 0 or node.op_type not in ("Clip", "Expand", "Reshape")
            if not is_operand or _without_ones(dims) != _without_ones(small):
                return False
            if id(node) not in seen:
                seen.add(id(node))
                waiting.append(node.outputs[0])
    return True


def mean_factor(reduction: ir.Node, size: int) -> tuple[ir.Node, int, Array] | None:
    """Where a sum over ``size`` elements becomes a mean: (node, input, constant), or None.

    The next node multiplies by 1 / size, or divides by size.
    """
    node = only_consumer(reduction.outputs[0])
    if reduction.op_type not in ("ReduceSum", "ReduceSumSquare") or node is None:
        return None
    exponent = {"Mul": -1.0, "Div": 1.0}.get(node.op_type)
    for index, given in enumerate(node.inputs):
        array = constant_array(given)
        if exponent is None or array is None or array.size != 1:
            continue
        if node.op_type == "Div" and index == 0:
            continue
        if np.isclose(float(array.reshape(())), size**exponent, rtol=_SAME):
            return node, index, array
    return None


def _without_ones(dims: Dims) -> list[int | None]:
    return [dim for dim in dims if dim != 1]
