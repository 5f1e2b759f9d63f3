"""LSTM with integer weights: ``com.microsoft::DynamicQuantizeLSTM``.

The operator quantises what it reads and its state at each step. It has the inputs of ONNX's LSTM,
with W and R transposed to [directions, terms, 4 * hidden], and after them their scales and zero
points. Source: ONNX Runtime, operator com.microsoft.DynamicQuantizeLSTM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant, constant_array, input_at
from trimton.transforms.graph.fold import fold_node
from trimton.transforms.quantize.integer_rows import IntegerRows
from trimton.transforms.quantize.products import LEAST_NUMBERS, name_of
from trimton.transforms.report import Skipped

DOMAIN = "com.microsoft"
# Inputs of LSTM: sequence, W, R, B, lengths, initial state and cell, peepholes.
_INPUTS = 8
_WEIGHTS = (1, 2)
# Where the batch stands (operator set 14): the operator knows only its default, the second axis.
_LAYOUT = "layout"


@dataclass(frozen=True)
class Lstm:
    """An LSTM whose weights W and R, float32 [directions, 4 * hidden, terms], are constant."""

    node: ir.Node

    @property
    def name(self) -> str:
        """The node's name, or that of its output."""
        return name_of(self.node)

    def weights(self) -> tuple[Array, ...]:
        """W and R."""
        found = [constant_array(self.node.inputs[index]) for index in _WEIGHTS]
        return tuple(array for array in found if array is not None)


def find_lstms(model: ir.Model) -> tuple[tuple[Lstm, ...], tuple[Skipped, ...]]:
    """The LSTMs of all graphs of ``model`` that can be quantised, and the others with the reason.

    Weights that nodes make of constants, as exporters write them, become constants, in place.
    """
    editor = Editor(model)
    found: list[Lstm] = []
    skipped: list[Skipped] = []
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type != "LSTM" or node.domain:
            continue
        for index in (*_WEIGHTS, 3):
            _fold_origins(input_at(node, index), editor)
        why = _why_not(node)
        if why is None:
            found.append(Lstm(node))
        else:
            skipped.append(Skipped(name_of(node), why))
    return tuple(found), tuple(skipped)


def write_lstm(lstm: Lstm, encode: Callable[[Array], IntegerRows], editor: Editor) -> Array:
    """Put the integer operator in place of ``lstm``; ``encode`` makes integers of [rows, terms].

    Gives the squared errors of the weights of W and R and their squares, [2, 2].
    """
    node, graph = lstm.node, lstm.node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{lstm.name} belongs to no graph")
    inputs = [input_at(node, index) for index in range(_INPUTS)]
    parameters: list[ir.Value] = []
    errors = []
    for index, array in zip(_WEIGHTS, lstm.weights(), strict=True):
        hint = _name(inputs[index], lstm)
        directions, gates, terms = array.shape
        rows = encode(array.reshape(-1, terms))
        errors.append(_errors(rows, array))
        integers = rows.integers.reshape(array.shape).transpose(0, 2, 1)
        scale = np.broadcast_to(rows.scale, directions * gates).reshape(directions, gates)
        inputs[index] = editor.add_constant(graph, f"{hint}_quantized", integers)
        parameters += [
            editor.add_constant(graph, f"{hint}_scale", np.ascontiguousarray(scale)),
            editor.add_constant(graph, f"{hint}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
    attributes = [a for name, a in node.attributes.items() if name != _LAYOUT]
    made = ir.Node(
        DOMAIN,
        "DynamicQuantizeLSTM",
        [*inputs, *parameters],
        attributes,
        num_outputs=len(node.outputs),
        name=node.name,
    )
    graph.insert_before(node, made)
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.type, new.shape, name = old.type, old.shape, old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
    graph.remove(node, safe=True)
    editor.model.opset_imports.setdefault(DOMAIN, 1)
    return np.array(errors)


def _errors(rows: IntegerRows, array: Array) -> tuple[float, float]:
    flat = array.reshape(len(rows.integers), -1)
    noise = np.square(rows.dequantised() - flat, dtype=np.float64).sum()
    return float(noise), float(np.square(flat, dtype=np.float64).sum())


def _name(value: ir.Value | None, lstm: Lstm) -> str:
    return (value.name if value is not None else None) or lstm.name


def _why_not(node: ir.Node) -> str | None:
    if node.attributes.get_int(_LAYOUT, 0):
        return "its batch comes first (layout 1), which the integer kernel does not know"
    tensors = [constant(node.inputs[index]) for index in _WEIGHTS]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(_WEIGHTS):
        return "its weights are computed"
    if any(tensor.dtype != ir.DataType.FLOAT for tensor in known):
        return "its weights are not float32, which is what becomes integers"
    if sum(tensor.size for tensor in known) < LEAST_NUMBERS:
        return f"its weights are small (fewer than {LEAST_NUMBERS} numbers)"
    return None


def _fold_origins(value: ir.Value | None, editor: Editor) -> None:
    """Replace ``value`` by a constant where all that it is made of is constant."""
    node = None if value is None else value.producer()
    if node is None or constant(value) is not None:
        return
    for origin in node.inputs:
        _fold_origins(origin, editor)
    fold_node(node, editor)
