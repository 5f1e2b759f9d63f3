"""The identity of a model: a digest of what it computes and of its interface.

Equal for the same model in another file or folder, with its weights inside or outside, with
other documentation strings, node names, value annotations or order of its metadata. Different
when an operator, a weight, a name in the interface, an operator set or a metadata entry is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import onnx_ir as ir


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def model_digest(model: ir.Model) -> str:
    """The SHA-256 of the contents of ``model``, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    _text(state, "model", sorted(model.opset_imports.items()), sorted(model.metadata_props.items()))
    _interface(state, model.graph)
    _graph(state, model.graph)
    for identifier in sorted(model.functions):
        function = model.functions[identifier]
        _text(state, "function", identifier, sorted(function.opset_imports.items()))
        _names(state, "inputs", function.inputs)
        _names(state, "outputs", function.outputs)
        _attributes(state, function.attributes)
        for node in function:
            _node(state, node)
    return state.hexdigest()


def tensor_digest(tensor: ir.TensorProtocol) -> str:
    """The SHA-256 of type, shape and contents of ``tensor``."""
    state = hashlib.sha256()
    _tensor(state, tensor)
    return state.hexdigest()


def attributes_digest(node: ir.Node) -> str:
    """The SHA-256 of the attributes of ``node``, whatever their order."""
    state = hashlib.sha256()
    _attributes(state, node.attributes)
    return state.hexdigest()


def _interface(state: _Hash, graph: ir.Graph) -> None:
    for role, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        _text(state, role, [(v.name, str(v.type), str(v.shape)) for v in values])


def _graph(state: _Hash, graph: ir.Graph) -> None:
    _names(state, "inputs", graph.inputs)
    _names(state, "outputs", graph.outputs)
    for name in sorted(graph.initializers):
        _text(state, "initializer", name)
        tensor = graph.initializers[name].const_value
        if tensor is not None:
            _tensor(state, tensor)
    for node in graph:
        _node(state, node)
    _text(state, "end")


def _node(state: _Hash, node: ir.Node) -> None:
    _text(state, "node", node.domain, node.op_type, node.overload)
    _names(state, "inputs", node.inputs)
    _names(state, "outputs", node.outputs)
    _attributes(state, node.attributes)


def _attributes(state: _Hash, attributes: Mapping[str, ir.Attr]) -> None:
    for name in sorted(attributes):
        attribute = attributes[name]
        _text(state, "attribute", name, attribute.type.name, attribute.ref_attr_name)
        if attribute.is_ref() or attribute.value is None:
            continue
        match attribute.type:
            case ir.AttributeType.GRAPH:
                _graph(state, attribute.as_graph())
            case ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    _graph(state, graph)
            case ir.AttributeType.TENSOR:
                _tensor(state, attribute.as_tensor())
            case ir.AttributeType.TENSORS:
                for tensor in attribute.as_tensors():
                    _tensor(state, tensor)
            case _:
                _text(state, attribute.value)


def _tensor(state: _Hash, tensor: ir.TensorProtocol) -> None:
    shape = list(tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        strings = [bytes(item).hex() for item in _string_data(tensor)]
        _text(state, "strings", shape, strings)
        return
    _text(state, "tensor", tensor.dtype.name, shape)
    state.update(tensor.tobytes())


def _string_data(tensor: ir.TensorProtocol) -> Iterable[bytes]:
    if isinstance(tensor, ir.StringTensor):
        return tensor.string_data()
    return [s if isinstance(s, bytes) else str(s).encode() for s in tensor.numpy().reshape(-1)]


def _names(state: _Hash, role: str, values: Iterable[ir.Value | None]) -> None:
    _text(state, role, [None if value is None else value.name for value in values])


def _text(state: _Hash, *parts: Any) -> None:
    """One line of JSON a call, so that no two structures share their bytes."""
    state.update(json.dumps(parts, default=str, ensure_ascii=True).encode() + b"\n")
