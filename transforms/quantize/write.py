"""Writing a placement into a graph in the QDQ form.

A value ``v`` that is read in integers gets ``v -> QuantizeLinear -> DequantizeLinear``, and its
readers read the result; the runtime fuses the pairs around an operator into an 8-bit kernel. A
weight is stored as integers behind a DequantizeLinear, a bias as int32 with the scale of the
sums, that of the activation times that of the weight. Rows of a table are looked up as integers
and dequantised afterwards.

Source: ONNX operators QuantizeLinear and DequantizeLinear (operator set 13).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Editor, constant_array
from trimton.transforms.quantize.encoding import Array, Encoding
from trimton.transforms.quantize.qdq_nodes import QdqNodes, producer_of
from trimton.transforms.quantize.sites import Placement, WeightSite

Weights = Mapping[str, tuple[Array, Encoding]]


def write(
    model: ir.Model,
    placement: Placement,
    encodings: Mapping[str, Encoding],
    weights: Weights,
    *,
    integer_bias: bool = True,
) -> None:
    """Quantise ``model`` in place as ``placement`` says.

    ``encodings`` has one for every value of the placement's activations, ``weights`` the integers
    and the encoding of every constant of its weights, both by name. ``integer_bias`` stores
    biases in int32 (see bounds.smallest_weight_scale).
    """
    writer = _Writer(model, placement, encodings, weights)
    writer.write_weights(integer_bias)
    writer.write_activations()
    writer.drop_unused()


class _Writer:
    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        encodings: Mapping[str, Encoding],
        weights: Weights,
    ) -> None:
        self._graph = model.graph
        self._editor = Editor(model)
        self._placement, self._encodings, self._weights = placement, encodings, weights
        self._nodes = {node.name: node for node in model.graph if node.name in placement.nodes}
        self._values = {v.name: v for v in model.graph.inputs if v.name} | {
            output.name: output for node in model.graph for output in node.outputs if output.name
        }
        self._written: dict[str, ir.Value] = {}
        self._quantised: dict[str, ir.Value] = {}
        self._qdq = QdqNodes(model.graph, self._editor)

    def write_weights(self, integer_bias: bool) -> None:
        for site in self._placement.weights:
            node = self._nodes[site.layer]
            integers, encoding = self._weights[site.value]
            index = _index(node, site.value)
            if node.op_type == "Gather" and index == 0:
                self._write_table(node, integers, encoding)
                continue
            node.replace_input_with(index, self._dequantised(site.value, integers, encoding, node))
            if integer_bias and site.bias is not None and site.activation is not None:
                self._write_bias(node, site, encoding, self._encodings[site.activation])

    def write_activations(self) -> None:
        for site in self._placement.activations:
            encoding = self._encodings[site.values[0]]
            names = site.values
            if site.source is not None:
                self._rescale(self._values[names[0]], self._quantised[site.source], encoding)
                names = names[1:]
            for name in names:
                self._quantise(self._values[name], encoding)

    def drop_unused(self) -> None:
        """Remove what is not read any more: floats of integers, and constants."""
        for node in list(self._graph):
            output = node.outputs[0]
            is_unused = not output.uses() and not output.is_graph_output()
            if node.op_type == "DequantizeLinear" and is_unused:
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self._graph.initializers[name]

    def _quantise(self, value: ir.Value, encoding: Encoding) -> None:
        """Send ``value`` through integers for those that read it in integers.

        Where it comes out of an 8-bit kernel there is nothing else to read.
        """
        producer = value.producer()
        is_integer = producer is not None and producer.name in self._nodes
        name = value.name or ""
        users = [use for use in value.uses() if is_integer or self._reads_integers(*use)]
        scale, zero_point = self._qdq.parameters(name, encoding)
        quantised = self._qdq.node(
            "QuantizeLinear", name, [value, scale, zero_point], encoding.dtype
        )
        quantised.shape = value.shape
        self._quantised[name] = quantised
        if producer is None:
            self._graph.insert_before(next(iter(self._graph)), producer_of(quantised))
        else:
            self._graph.insert_after(producer, producer_of(quantised))
        result = self._floats(value, quantised, encoding)
        for node, index in users:
            node.replace_input_with(index, result)
        if is_integer:
            self._stand_in(value, result)

    def _rescale(self, value: ir.Value, quantised: ir.Value, encoding: Encoding) -> None:
        """Make ``value`` from integers that are there, in place of the node that made it."""
        result = self._floats(value, quantised, encoding)
        value.replace_all_uses_with(result)
        self._stand_in(value, result)
        self._quantised[value.name or ""] = quantised
        self._graph.remove(producer_of(value), safe=True)

    def _floats(self, value: ir.Value, quantised: ir.Value, encoding: Encoding) -> ir.Value:
        """The floats of ``quantised`` that stand for ``value``."""
        name = value.name or ""
        inputs = [quantised, *self._qdq.parameters(name, encoding)]
        result = self._qdq.node("DequantizeLinear", name, inputs, ir.DataType.FLOAT)
        result.shape = value.shape
        self._graph.insert_after(producer_of(quantised), producer_of(result))
        return result

    def _reads_integers(self, node: ir.Node, index: int) -> bool:
        return node.graph is self._graph and node.name in self._nodes

    def _stand_in(self, value: ir.Value, result: ir.Value) -> None:
        """Where ``value`` is an output of the model, let ``result`` be it."""
        if value.is_graph_output():
            name = value.name or ""
            place = list(self._graph.outputs).index(value)
            value.name, result.name = self._editor.fresh_name(f"{name}_float"), name
            result.shape, result.type = value.shape, value.type
            self._graph.outputs[place] = result

    def _dequantised(
        self, name: str, integers: Array, encoding: Encoding, before: ir.Node
    ) -> ir.Value:
        """The floats of a constant that is stored as integers, made ahead of ``before``."""
        if name not in self._written:
            stored = self._editor.add_constant(self._graph, f"{name}_quantized", integers)
            scale, zero_point = self._qdq.parameters(name, encoding)
            inputs = [stored, scale, zero_point]
            result = self._qdq.node(
                "DequantizeLinear", name, inputs, ir.DataType.FLOAT, encoding.axis
            )
            result.shape = stored.shape
            self._graph.insert_before(before, producer_of(result))
            self._written[name] = result
        return self._written[name]

    def _write_table(self, node: ir.Node, integers: Array, encoding: Encoding) -> None:
        name = node.inputs[0].name or "" if node.inputs[0] is not None else ""
        key = f"{name}_quantized"
        if key not in self._written:
            self._written[key] = self._editor.add_constant(self._graph, key, integers)
        node.replace_input_with(0, self._written[key])
        rows = node.outputs[0]
        nodes = self._qdq.rows(name, rows, encoding)
        self._graph.insert_after(node, nodes)
        reader, result = nodes[0], nodes[-1].outputs[0]
        rows.type = ir.TensorType(encoding.dtype)
        for user, index in tuple(rows.uses()):
            if user is not reader:
                user.replace_input_with(index, result)
        old = rows.name or name
        rows.name, result.name = self._editor.fresh_name(f"{old}_quantized"), old
        self._values[old] = result
        if rows.is_graph_output():
            self._graph.outputs[list(self._graph.outputs).index(rows)] = result

    def _write_bias(
        self, node: ir.Node, site: WeightSite, weight: Encoding, activation: Encoding
    ) -> None:
        index = _index(node, site.bias or "")
        bias = constant_array(node.inputs[index])
        if bias is None:
            raise ValueError(f"the bias of {site.layer} is no constant")
        floats = bias.reshape(-1)
        scale = np.asarray(activation.scale * weight.scale, np.float32)
        axis = None if scale.ndim == 0 else 0
        encoding = Encoding(ir.DataType.INT32, scale, np.zeros(scale.shape, np.int32), axis)
        name = self._editor.fresh_name(f"{site.bias}_of_{site.layer}")
        integers = encoding.quantise(floats.astype(np.float64))
        node.replace_input_with(index, self._dequantised(name, integers, encoding, node))


def _index(node: ir.Node, name: str) -> int:
    for index, value in enumerate(node.inputs):
        if value is not None and value.name == name:
            return index
    raise ValueError(f"{node.name} does not read {name}")
