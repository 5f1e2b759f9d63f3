"""Which dimensions are fixed, in models whose inputs have free ones and that compute shapes.

ONNX's inference gives up where a shape is computed from a free dimension, though most of its
entries do not depend on it. With two different sizes for the free dimensions everything can be
inferred, and what comes out equal is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, input_at
from trimton.transforms.graph.fold import fold_small
from trimton.transforms.graph.shapes import bind_free_dims, infer_shapes, known_dims, static_shape
from trimton.transforms.prune.stand_ins import use_stand_ins

# Large enough for every pooling to leave something; nothing is computed at these sizes.
_TWO_SIZES = (256, 320)
# Which inputs of an operator decide on the shape of what it makes.
_SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2),
    "Split": (1,),
    "Tile": (1,),
    "Upsample": (1,),
}


def infer_fixed_shapes(model: ir.Model) -> None:
    """Infer all shapes of ``model``, in place; a dimension that inputs can change is free."""
    infer_shapes(model)
    outputs = [value for node in model.graph for value in node.outputs if value.name]
    if all(known_dims(value) is not None for value in outputs) and not _computes_shapes(model):
        return
    one, other = (_shapes_at(model, size) for size in _TWO_SIZES)
    for value in outputs:
        first, second = one.get(value.name or ""), other.get(value.name or "")
        if first is not None and second is not None and len(first) == len(second):
            pairs = zip(first, second, strict=True)
            value.shape = ir.Shape(a if a == b else None for a, b in pairs)


def _computes_shapes(model: ir.Model) -> bool:
    """Whether the shape of something is made by other nodes."""
    return any(
        (value := input_at(node, index)) is not None and constant(value) is None
        for node in model.graph
        for index in _SHAPE_INPUTS.get(node.op_type, ())
    )


def _shapes_at(model: ir.Model, size: int) -> Mapping[str, tuple[int, ...] | None]:
    """The shapes of the main graph's values, by name, when every free dimension is ``size``."""
    copy = model.clone()
    use_stand_ins(copy)
    bind_free_dims(copy, {}, size)
    while fold_small(copy):
        bind_free_dims(copy, {}, size)
    return {
        value.name: static_shape(value)
        for node in copy.graph
        for value in node.outputs
        if value.name
    }
