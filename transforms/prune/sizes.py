"""Which dimensions are fixed, in models whose inputs have free ones and that compute shapes.

ONNX's inference gives up where a shape is computed from a free dimension, though most of its
entries do not depend on it. With sizes for the free dimensions everything can be inferred, and
what stays the same at other sizes is fixed. First all of them get one large size, then another.
Some models cannot do with these, whatever their inputs declare; then sizes are taken on which the
model runs, and varied one at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, input_at
from trimton.transforms.graph.fold import fold_small
from trimton.transforms.graph.shapes import bind_free_dims, infer_shapes, known_dims, static_shape
from trimton.transforms.prune.activations import random_feeds
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

_Shape = tuple[int, ...]
# The shapes of the main graph's values, by name; None where one is unknown.
_Shapes = Mapping[str, _Shape | None]


def infer_fixed_shapes(model: ir.Model) -> None:
    """Infer all shapes of ``model``, in place; a dimension that inputs can change is free."""
    infer_shapes(model)
    if not _computes_shapes(model) and all(known_dims(v) is not None for v in _made(model)):
        return
    one, other = (_shapes_at(model, _of_size(model, size)) for size in _TWO_SIZES)
    _take_over(_made(model), one, [other])
    if None in (*one.values(), *other.values()):
        _infer_at_runnable_sizes(model)


def _infer_at_runnable_sizes(model: ir.Model) -> None:
    for feed in random_feeds(model)[:1]:
        shapes = {name: array.shape for name, array in feed.items()}
        varied = [_doubled(shapes, places) for places in _free_dimensions(model)]
        others = [_shapes_at(model, each) for each in varied]
        _take_over(_made(model), _shapes_at(model, shapes), others)


def _take_over(values: Sequence[ir.Value], one: _Shapes, others: Sequence[_Shapes]) -> None:
    """Give ``values`` the dimensions of ``one`` that are the same in all ``others``.

    Where a value is unknown in one of these, the model cannot have that size.
    """
    for value in values:
        dims = one.get(value.name or "")
        if dims is None:
            continue
        found = [other.get(value.name or "") for other in others]
        same_rank = [shape for shape in found if shape is not None and len(shape) == len(dims)]
        if not same_rank:
            continue
        value.shape = ir.Shape(
            dim if all(shape[axis] == dim for shape in same_rank) else None
            for axis, dim in enumerate(dims)
        )


def _made(model: ir.Model) -> list[ir.Value]:
    """What nodes of the main graph make and something reads."""
    values = (value for node in model.graph for value in node.outputs)
    return [value for value in values if value.uses() or value.is_graph_output()]


def _computes_shapes(model: ir.Model) -> bool:
    """Whether the shape of something is made by other nodes."""
    return any(
        (value := input_at(node, index)) is not None and constant(value) is None
        for node in model.graph
        for index in _SHAPE_INPUTS.get(node.op_type, ())
    )


def _of_size(model: ir.Model, size: int) -> Mapping[str, _Shape]:
    """The shapes of the inputs when every free dimension is ``size``."""
    return {
        value.name or "": tuple(size if dim is None else dim for dim in known_dims(value) or ())
        for value in model.graph.inputs
        if value.shape is not None
    }


def _free_dimensions(model: ir.Model) -> list[list[tuple[str, int]]]:
    """(input, axis) of free dimensions; those of one name belong together."""
    places: dict[Hashable, list[tuple[str, int]]] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                place = (value.name or "", axis)
                places.setdefault(dim.value or place, []).append(place)
    return list(places.values())


def _doubled(
    shapes: Mapping[str, _Shape], places: Sequence[tuple[str, int]]
) -> Mapping[str, _Shape]:
    return {
        name: tuple(2 * dim if (name, axis) in places else dim for axis, dim in enumerate(shape))
        for name, shape in shapes.items()
    }


def _shapes_at(model: ir.Model, inputs: Mapping[str, _Shape]) -> _Shapes:
    """What can be inferred when the inputs have these shapes."""
    copy = model.clone()
    use_stand_ins(copy)
    for value in copy.graph.inputs:
        if (shape := inputs.get(value.name or "")) is not None:
            value.shape = ir.Shape(shape)
    bind_free_dims(copy, {})
    while fold_small(copy):
        bind_free_dims(copy, {})
    return {value.name or "": static_shape(value) for value in _made(copy)}
