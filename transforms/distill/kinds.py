"""What an output means, which decides by which loss a student learns it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.shapes import known_dims

LOGITS, PROBABILITIES, CHANCES = "logits", "probabilities", "chances"
DIRECTION, VALUES, ROBUST_VALUES = "direction", "values", "robust-values"

KINDS: Mapping[str, str] = {
    LOGITS: "scores of classes along the last axis, before a softmax",
    PROBABILITIES: "probabilities of classes along the last axis",
    CHANCES: "a chance between 0 and 1 by itself in every place",
    DIRECTION: "a vector along the last axis of which the direction counts, as of an embedding",
    VALUES: "numbers, by their squared error",
    ROBUST_VALUES: "numbers, by Huber's error, for which outliers count less",
}
CLASSES = frozenset({LOGITS, PROBABILITIES})

# What makes an output, as far as that tells its meaning.
_BY_OPERATOR: Mapping[str, str] = {
    "LogSoftmax": LOGITS,
    "LpNormalization": DIRECTION,
    "Sigmoid": CHANCES,
    "Softmax": PROBABILITIES,
}
_BY_NAME: Mapping[str, str] = {"logits": LOGITS, "embedding": DIRECTION}
# These hand on what they read, in another layout at most.
_TRANSPARENT = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def output_kinds(
    model: ir.Model, chosen: Mapping[str, str], *, classes: int | None = None
) -> dict[str, str]:
    """By name the kind of every output of floating point; ``chosen`` goes before all else.

    ``classes`` is the least number of classes that the labels name (None: there are no labels):
    then an output [N, classes or more] of a plain layer holds logits. An output of which nothing
    tells the meaning holds values. Raises InputError where ``chosen`` names no such output,
    UnsupportedModelError where there is none.
    """
    outputs = {value.name or "": value for value in model.graph.outputs if _is_float(value)}
    if not outputs:
        raise UnsupportedModelError(
            "no output is of floating point, so there is nothing to learn by gradients; take the "
            "part of the model before its last integers."
        )
    for name in chosen:
        if name not in outputs:
            raise InputError(
                f"loss {name}={chosen[name]}: is no output of floating point of the models "
                f"(outputs: {', '.join(outputs)})."
            )
    return {name: chosen.get(name) or _kind(value, classes) for name, value in outputs.items()}


def _kind(output: ir.Value, classes: int | None) -> str:
    node = output.producer()
    while node is not None and node.op_type in _TRANSPARENT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    operator = "" if node is None or node.domain else node.op_type
    if operator == "Softmax" and not _is_last_axis(node, output):
        operator = ""
    name = (output.name or "").lower()
    by_name = next((kind for part, kind in _BY_NAME.items() if part in name), None)
    if kind := _BY_OPERATOR.get(operator) or by_name:
        return kind
    return LOGITS if operator in {"Gemm", "MatMul", "Add"} and _names(output, classes) else VALUES


def _is_last_axis(node: ir.Node | None, output: ir.Value) -> bool:
    axis = -1 if node is None else node.attributes.get_int("axis", -1)
    return axis == -1 or (output.shape is not None and axis == len(output.shape) - 1)


def _names(output: ir.Value, classes: int | None) -> bool:
    """Whether ``output`` is one score a class for as many classes as the labels name."""
    dims = known_dims(output)
    if classes is None or dims is None or len(dims) != 2:
        return False
    return dims[1] is not None and dims[1] >= max(2, classes)


def _is_float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()
