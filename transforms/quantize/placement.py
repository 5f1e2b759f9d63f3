"""Which operators are quantised for ONNX Runtime's CPU provider, and the account of it."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.report import Skipped, Step

# Operators with 8-bit kernels, which ONNX Runtime fuses from their QDQ form.
KERNELS = (
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "Mul",
    "Sigmoid",
    "Split",
)
# Operators that move values without arithmetic: quantised only between quantised neighbours.
MOVES = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

# Activations that the runtime drops between an 8-bit kernel and the quantisation of its output:
# the range of the quantised tensor, which starts at zero, does their work.
ABSORBED = ("Clip", "Relu")

_KNOWN = frozenset((*KERNELS, *MOVES, *ABSORBED))
_COMPUTED = "computed on 8-bit values"
_HOW = dict.fromkeys(ABSORBED, "absorbed by the range of the quantised tensor after it")

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def placement_report(
    original: ir.Model, quantised: ir.Model, exclude: tuple[str, ...]
) -> tuple[tuple[Step, ...], tuple[Skipped, ...]]:
    """What ``quantised`` computes in 8 bits, as counts by operator, and what it does not, with why.

    A node counts as quantised when all that it computes with comes from a DequantizeLinear, and
    an activation function when it stands between such a node and a QuantizeLinear.
    """
    done: Counter[str] = Counter()
    in_float: set[str] = set()
    for node in quantised.graph:
        if node.op_type in (_Q, _DQ) or node.domain:
            continue
        if _reads_quantised(node) or _is_absorbed(node):
            done[node.op_type] += 1
        else:
            in_float.add(node.name or "")
    present = {node.name or "" for node in quantised.graph}
    skipped = [
        Skipped(f"{node.op_type} {node.name}", why)
        for node in original.graph
        if (why := _why_float(node, in_float, present, exclude)) is not None
    ]
    steps = tuple(
        Step("quantise", f"{op_type} {_HOW.get(op_type, _COMPUTED)}", count, {"op_type": op_type})
        for op_type, count in sorted(done.items())
        if op_type in _KNOWN
    )
    return steps, tuple(skipped)


def _reads_quantised(node: ir.Node) -> bool:
    """Whether every activation and weight of ``node`` comes from a DequantizeLinear."""
    values = [v for v in node.inputs if v is not None and not _is_parameter(v)]
    producers = [value.producer() for value in values]
    return bool(producers) and all(p is not None and p.op_type == _DQ for p in producers)


def _is_parameter(value: ir.Value) -> bool:
    """Whether ``value`` is a constant that is no number to compute with: a shape or axes."""
    return value.const_value is not None and not value.const_value.dtype.is_floating_point()


def _is_absorbed(node: ir.Node) -> bool:
    if node.op_type not in ABSORBED or node.inputs[0] is None:
        return False
    before = node.inputs[0].producer()
    after = {use.node.op_type for use in node.outputs[0].uses()}
    return before is not None and _reads_quantised(before) and after == {_Q}


def _why_float(
    node: ir.Node, in_float: set[str], present: set[str], exclude: tuple[str, ...]
) -> str | None:
    """Why ``node`` stayed in float; None if it did not."""
    name = node.name or ""
    if node.op_type in ABSORBED and name not in present:
        return None
    if name not in in_float and node.op_type in _KNOWN:
        return None
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return "excluded by name"
    if subgraphs_of(node):
        return "control flow: its subgraphs stay in float"
    if node.op_type in KERNELS:
        return "its inputs are not all quantised"
    if node.op_type in MOVES:
        return "not between quantised neighbours"
    return "ONNX Runtime's CPU provider has no 8-bit kernel for it"
