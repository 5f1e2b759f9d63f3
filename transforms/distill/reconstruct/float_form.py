"""The float model in the graph of its quantised form: the same nodes and names, nothing rounded.

Quantisation rewrites a graph, scales weights, and drops what integers make superfluous, so that
values inside a quantised model have no twin in the float one. Its own graph without the rounding
has one of each: QuantizeLinear and DequantizeLinear hand on what they read, and layers get the
weights and biases of the float model, scaled as those that were rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.distill.reconstruct.layers import (
    QuantisedLayer,
    array_of,
    before_rounding,
    dequantised,
    output_axis,
    quantised_layers,
)
from trimton.transforms.distill.reconstruct.scaling import (
    ScaledValue,
    channel_factors,
    plausible,
    spread,
)
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import Array, Editor, constant_array, input_at, only_consumer
from trimton.transforms.graph.taps import Feed
from trimton.transforms.quantize.integer_forms import to_integer_forms
from trimton.transforms.quantize.prepare import prepare

# A weight in 2 bits is closer to its float than this share of it, in squares; one of another
# model is not.
_FARTHEST = 0.5

_Twins = Mapping[str | None, ir.Node]


@dataclass(frozen=True)
class FloatForm:
    """``model`` computes in floats what the quantised one does.

    ``weights`` are those of its layers, by the layer's name, in the layout of the integers.
    """

    model: ir.Model
    weights: Mapping[str, Array]


def float_forms(
    quantised: ir.Model, original: ir.Model, feeds: Sequence[Feed]
) -> Iterator[FloatForm]:
    """Float forms of ``quantised``, should it be made of ``original``, or of its fused form.

    Whether one is right its outputs tell; ``feeds`` are a few samples. Raises InputError, naming a
    layer, where neither model has the weights of all layers.
    """
    failure, count = None, 0
    for source in (original, fuse(original)[0]):
        try:
            form = _float_form(quantised, source, feeds)
        except InputError as error:
            failure = failure or error
            continue
        count += 1
        yield form
    if failure is not None and not count:
        raise failure


def _float_form(quantised: ir.Model, original: ir.Model, feeds: Sequence[Feed]) -> FloatForm:
    prepared = prepare(original)[0]
    to_integer_forms(prepared)
    model = quantised.clone()
    pairs = _pairs(model, prepared)
    values = [value for pair in pairs for value in (pair.read, pair.made)]
    factors = channel_factors(quantised, prepared, values, feeds)
    weights = {pair.layer.node: _restore(model, pair, factors) for pair in pairs}
    editor, twins = Editor(model), {node.name: node for node in prepared.graph}
    for node in list(model.graph):
        if node.domain:
            continue
        if node.op_type == "DequantizeLinear":
            _restore_constant(node, twins)
        if node.op_type == "QuantizeLinear":
            _hand_on(node, editor)
    return FloatForm(model, weights)


@dataclass(frozen=True)
class _Pair:
    """A layer of the quantised model, its node there and in the float model, and what both read
    and make."""

    layer: QuantisedLayer
    node: ir.Node
    twin: ir.Node
    read: ScaledValue
    made: ScaledValue


def _pairs(model: ir.Model, original: ir.Model) -> list[_Pair]:
    nodes, twins = ({node.name: node for node in one.graph} for one in (model, original))
    found = []
    for layer in quantised_layers(model)[0]:
        node, twin = nodes[layer.node], twins.get(layer.node)
        shape = array_of(model, layer.integers).shape
        weight = None if twin is None else constant_array(input_at(twin, 1))
        if twin is None or weight is None or weight.shape != shape:
            raise InputError(
                f"layer {layer.node!r} of the quantised model has a weight {list(shape)}, which "
                "the float model lacks; give the model that it was quantised from."
            )
        axis = 1 if node.op_type == "Conv" else -1
        read, made = (
            ScaledValue(a.name or "", b.name or "", axis)
            for a, b in (
                (before_rounding(node.inputs[0]), twin.inputs[0]),
                (node.outputs[0], twin.outputs[0]),
            )
            if a is not None and b is not None
        )
        found.append(_Pair(layer, node, twin, read, made))
    return found


def _restore(model: ir.Model, pair: _Pair, factors: Mapping[ScaledValue, Array]) -> Array:
    """Have a layer read its float weight, which is returned, and bias."""
    node, outputs = pair.node, output_axis(pair.node)
    original = constant_array(pair.twin.inputs[1])
    assert original is not None
    rounded = dequantised(model, pair.layer, node)
    along = {axis: [-1 if i == axis else 1 for i in range(original.ndim)] for axis in (0, 1)}
    made = spread(factors, pair.made, along[outputs])
    made = plausible(made, original, rounded, outputs)
    read = 1 / spread(factors, pair.read, along[1 - outputs])
    if node.attributes.get_int("group", 1) > 1:  # its inputs are those of several outputs
        read = np.ones(1)
    read = plausible(read, original * made, rounded, 1 - outputs)
    scaled: Array = (original * made * read).astype(np.float32)
    if np.square(rounded - scaled).sum() > _FARTHEST * np.square(scaled).sum():
        raise InputError(
            f"the weight of layer {pair.layer.node!r} of the quantised model is not that of the "
            "float model; give the model that it was quantised from."
        )
    source = node.inputs[1]
    assert source is not None
    _become_floats(source.producer(), scaled)
    _restore_bias(pair, made.reshape(-1))
    return scaled


def _restore_bias(pair: _Pair, factors: Array) -> None:
    """Undo what correction and rounding did to the bias of a layer, scaled by ``factors``."""
    for (reader, index), twin in zip(_biases(pair.node), _biases(pair.twin), strict=False):
        value, theirs = input_at(reader, index), constant_array(input_at(*twin))
        source = None if value is None else value.producer()
        stored = constant_array(value if source is None else input_at(source, 0))
        if value is None or theirs is None or stored is None or stored.shape != theirs.shape:
            continue
        scaled = (theirs * factors).astype(np.float32)
        if source is not None:
            _become_floats(source, scaled)
        elif len(tuple(value.uses())) == 1:
            value.const_value = ir.tensor(scaled, name=value.name)


def _biases(layer: ir.Node) -> list[tuple[ir.Node, int]]:
    """Where the bias of ``layer`` may stand: a node and the place of an input."""
    if layer.op_type != "MatMul":
        return [(layer, 2)]
    add = only_consumer(layer.outputs[0])
    return [(add, 0), (add, 1)] if add is not None and add.op_type == "Add" else []


def _restore_constant(node: ir.Node, twins: _Twins) -> None:
    """Let ``node``, where it makes floats of a constant or of its rows, hand on floats."""
    stored = node.inputs[0]
    gather = None if stored is None else stored.producer()
    if gather is not None and gather.op_type == "Gather":
        reader, index = gather, 0
    elif stored is not None and stored.is_initializer():
        reader, index = next(iter(node.outputs[0].uses()))
    else:
        return
    twin, table = twins.get(reader.name), reader.inputs[index] if gather is reader else stored
    original = None if twin is None else constant_array(input_at(twin, index))
    tensor = None if table is None else table.const_value
    if original is None or tensor is None or original.shape != tuple(tensor.shape.numpy()):
        return
    if gather is reader and table is not None:
        _set_floats(table, original.astype(np.float32))
        gather.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        _become(node, "Identity")
    else:
        _become_floats(node, original.astype(np.float32))


def _hand_on(node: ir.Node, editor: Editor) -> None:
    """Let the QuantizeLinear ``node`` and those that read its integers hand on floats.

    Where a node was dropped that only scales, the integers are read with another scale.
    """
    readers = [use.node for use in node.outputs[0].uses()]
    scale = constant_array(node.inputs[1])
    if scale is None or any(reader.op_type != "DequantizeLinear" for reader in readers):
        return
    for reader in readers:
        other = constant_array(reader.inputs[1])
        factor = 1.0 if other is None else float(np.mean(other / scale))
        if factor == 1.0 or reader.graph is None:
            _become(reader, "Identity")
        else:
            constant = editor.add_constant(reader.graph, "rescaled", np.asarray(factor, np.float32))
            _become(reader, "Mul", constant)
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    _become(node, "Identity")


def _become_floats(node: ir.Node | None, array: Array) -> None:
    """Let ``node``, which makes floats of a constant, hand on ``array``."""
    assert node is not None
    assert node.inputs[0] is not None
    _set_floats(node.inputs[0], array)
    _become(node, "Identity")


def _set_floats(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(array, name=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _become(node: ir.Node, op_type: str, *others: ir.Value) -> None:
    """Make ``node`` another operator of what it reads first, and of ``others``."""
    node.op_type = op_type
    node.attributes.clear()
    node.resize_inputs(1 + len(others))
    for index, value in enumerate(others, start=1):
        node.replace_input_with(index, value)
