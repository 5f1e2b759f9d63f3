"""Writing half precision into a graph: types, Casts at the borders, weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant
from trimton.transforms.precision.formats import HalfFormat
from trimton.transforms.precision.slots import Slots


@dataclass
class Written:
    """What was written: ``casts`` between activations, weights ``stored`` in half precision and
    those of them that a Cast brings back to float32 when the model is loaded."""

    casts: int = 0
    stored: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


class HalfWriter:
    """Puts nodes of ``model`` into half precision, in place."""

    def __init__(self, model: ir.Model, form: HalfFormat, slots: Mapping[ir.Node, Slots]) -> None:
        self._editor, self._form, self._slots = Editor(model), form, slots
        self.written = Written()

    def reads_half(self, node: ir.Node, index: int) -> bool:
        """Whether ``node`` reads half precision at input ``index``."""
        slots = self._slots.get(node)
        return slots is not None and index in slots.inputs

    def write_activations(self) -> None:
        """Give values their types, with one Cast for each that both sides read."""
        graph = self._editor.model.graph
        for value in list(graph.inputs):
            if value.dtype == ir.DataType.FLOAT and not value.is_initializer():
                self._join(value, is_half=False)
        for node in list(graph):
            slots = self._slots.get(node)
            if slots is not None and node.op_type == "Cast" and slots.outputs:
                node.attributes["to"] = ir.AttrInt64("to", self._form.dtype)
            for index, output in enumerate(node.outputs):
                if output.dtype == ir.DataType.FLOAT:
                    self._join(output, is_half=slots is not None and index in slots.outputs)

    def write_weight(self, value: ir.Value, array: Array, *, restore: bool) -> None:
        """Store the initializer ``value`` in half precision.

        Nodes that compute in float32 get it back through a Cast with ``restore``, else through a
        float32 copy.
        """
        graph = value.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"{value.name} belongs to no graph")
        singles = [use for use in value.uses() if not self.reads_half(*use)]
        if len(singles) == len(tuple(value.uses())) and not restore:
            return
        if singles and restore:
            back = self._cast(value, ir.DataType.FLOAT, f"{value.name}_{_SINGLE}")
            first = next((node for node in graph), None)
            if first is None:
                graph.append(_maker(back))
            else:
                graph.insert_before(first, _maker(back))
            self.written.restored.append(value.name or "")
        elif singles:
            back = self._editor.add_constant(graph, f"{value.name}_{_SINGLE}", array)
        for node, index in singles:
            node.replace_input_with(index, back)
        value.const_value = ir.tensor(self._form.rounded(array), name=value.name)
        value.type = ir.TensorType(self._form.dtype)
        self.written.stored.append(value.name or "")

    def _join(self, value: ir.Value, *, is_half: bool) -> None:
        """Let the readers of ``value`` on the other side read it through a Cast."""
        if is_half:
            value.type = ir.TensorType(self._form.dtype)
        others = [use for use in value.uses() if self.reads_half(*use) != is_half]
        is_output = is_half and value.is_graph_output()
        if not others and not is_output:
            return
        to = ir.DataType.FLOAT if is_half else self._form.dtype
        other = self._cast(value, to, f"{value.name}_{_SINGLE if is_half else self._form.name}")
        graph, maker = self._editor.model.graph, value.producer()
        if maker is not None:
            graph.insert_after(maker, _maker(other))
        else:
            graph.insert_before(graph[0], _maker(other))
        for node, index in others:
            node.replace_input_with(index, other)
        if is_output:
            name, own = value.name or "", other.name
            graph.outputs[list(graph.outputs).index(value)] = other
            value.name, other.name = own, name
        self.written.casts += 1

    def _cast(self, value: ir.Value, to: ir.DataType, hint: str) -> ir.Value:
        name = self._editor.fresh_name(hint)
        attributes = [ir.AttrInt64("to", to)]
        node = ir.Node("", "Cast", [value], attributes, num_outputs=1, name=name)
        output = node.outputs[0]
        output.name, output.type, output.shape = name, ir.TensorType(to), value.shape
        return output


_SINGLE = "float32"


def _maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ValueError(f"no node makes {value.name}")
    return node


def float_weights(model: ir.Model, graphs: Collection[ir.Graph]) -> list[ir.Value]:
    """The float32 initializers of ``graphs`` that are the same in every run and no outputs."""
    return [
        value
        for graph in graphs
        for value in graph.initializers.values()
        if not value.is_graph_output()
        and (tensor := constant(value)) is not None
        and tensor.dtype == ir.DataType.FLOAT
    ]
