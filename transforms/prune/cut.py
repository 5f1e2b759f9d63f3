"""The cut: removed indices leave the weights and every number that encodes a size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.prune.index_space import Axis, Indices
from trimton.transforms.prune.rewrites import REWRITES, Kept
from trimton.transforms.prune.ties import Components, Layer, Ties


def kept_indices(ties: Ties, found: Components, removed: Indices) -> Kept:
    """What stays when the sets ``removed`` (labels) go."""
    is_gone = np.zeros(found.count, bool)
    is_gone[removed] = True
    return Kept(ties, ~is_gone[found.labels])


def cut(model: ir.Model, kept: Kept) -> None:
    """Remove from ``model``, in place, whatever ``kept`` does not keep.

    ``kept`` must have been found on this very model. Shapes are inferred anew.
    """
    editor = Editor(model)
    for node in list(model.graph):
        rewrite = REWRITES.get(node.op_type)
        if rewrite is not None and any(map(kept.is_cut, (*node.inputs, *node.outputs))):
            rewrite(node, kept, editor)
    for value, axes in _cut_weights(kept):
        tensor = constant(value)
        if tensor is not None:
            _set_tensor(value, _sliced(tensor.numpy(), axes, kept))
    for node in model.graph:
        for output in filter(kept.is_cut, node.outputs):
            output.shape = None  # that of an operator outside the standard would stay as it was
    infer_shapes(model)


def masked(model: ir.Model, kept: Kept) -> ir.Model:
    """A copy of ``model`` that ignores what ``kept`` does not keep, in the shapes it has.

    Whatever reads a removed channel finds zeros in its weights there, or in front of them where
    the weights are computed: the copy computes what the cut model must compute. ``kept`` must
    have been found on this very model.
    """
    copy = model.clone()
    editor = Editor(copy)
    twins = {id(node): twin for node, twin in zip(model.graph, copy.graph, strict=True)}
    zeroed: dict[str, Array] = {}
    for layer in kept.ties.layers:
        axis = None if layer.inputs is None else kept.ties.axis(layer.weight, layer.inputs)
        if axis is None or kept.is_kept[axis.indices].all():
            continue
        tensor = constant(layer.weight)
        if tensor is None:
            _mask_activation(layer, twins[id(layer.node)], kept, editor)
            continue
        name = layer.weight.name or ""
        array = zeroed.setdefault(name, tensor.numpy().copy())
        np.moveaxis(array, axis.position, 0)[~kept.is_kept[axis.indices]] = 0
    for name, array in zeroed.items():
        _set_tensor(copy.graph.initializers[name], array)
    return copy


def _mask_activation(layer: Layer, twin: ir.Node, kept: Kept, editor: Editor) -> None:
    """Multiply what ``twin``, the copy of the layer's node, reads by 1 and 0 in each channel."""
    graph = twin.graph
    places = [place for place, given in enumerate(layer.node.inputs) if given is layer.activation]
    value = twin.inputs[places[0]]
    if graph is None or value is None:
        raise ValueError("the node belongs to no graph")
    flags = kept.mask(layer.activation, layer.activation_axis)
    shape = [1] * kept.ties.rank(layer.activation)
    shape[layer.activation_axis] = len(flags)
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    name = editor.fresh_name(f"{value.name}_masked")
    factor = editor.add_constant(graph, f"{name}_by", flags.astype(dtype).reshape(shape))
    made = ir.Value(name=name, type=value.type, shape=value.shape)
    graph.insert_before(twin, ir.node("Mul", [value, factor], outputs=[made], name=name))
    for place in places:
        twin.replace_input_with(place, made)


def _cut_weights(kept: Kept) -> list[tuple[ir.Value, list[Axis]]]:
    found: dict[int, tuple[ir.Value, list[Axis]]] = {}
    for axis in kept.ties.space.axes:
        if constant(axis.value) is not None and not kept.is_kept[axis.indices].all():
            found.setdefault(id(axis.value), (axis.value, []))[1].append(axis)
    return list(found.values())


def _sliced(array: Array, axes: list[Axis], kept: Kept) -> Array:
    for axis in axes:
        array = np.compress(kept.is_kept[axis.indices], array, axis=axis.position)
    return array


def _set_tensor(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
