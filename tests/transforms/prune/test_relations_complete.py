"""A relation speaks of every axis: on ONNX's own examples of every operator, none is forgotten."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.prune.index_space import IndexSpace, graph_values
from trimton.transforms.prune.relations import RELATIONS
from trimton.transforms.prune.ties import Ties, constant_values

# (operator, "input 0" or "output") whose indices may go alone: nothing reads or makes them.
MAY_BE_LEFT = {
    ("ConstantOfShape", "output"): "all alike, and the shape is rewritten",
    ("Expand", "output"): "all alike, and the shape is rewritten",
    ("Gather", "input 0"): "what is not gathered is not read",
    ("Shape", "input 0"): "asking for a size reads no element",
    ("Slice", "input 0"): "what is cut off is not read",
}


def examples() -> Iterator[ir.Model]:
    """Models of one node with a relation, all inputs free, and all but the first constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or (nodes[0].domain, nodes[0].op_type) not in RELATIONS:
            continue
        yield ir.from_proto(case.model)
        if case.data_sets and len(case.model.graph.input) > 1:
            yield ir.from_proto(with_constants(case.model, case.data_sets[0][0]))


def with_constants(model: onnx.ModelProto, arrays: list[np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value, array in list(zip(copy.graph.input, arrays, strict=False))[1:]:
        if isinstance(array, np.ndarray):
            copy.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            copy.graph.input.remove(value)
    return copy


def forgotten(model: ir.Model) -> set[tuple[str, str]]:
    """(operator, place) of axes longer than 1 that the relation of the only node leaves out."""
    graph = model.graph
    node = graph[0]
    ties = Ties(
        IndexSpace(graph_values(graph)), constant_values(graph), model.opset_imports.get("", 0)
    )
    RELATIONS[node.domain, node.op_type](node, ties)
    is_named = np.zeros(ties.space.size, bool)
    for left, right in ties.pairs:
        is_named[left.reshape(-1)] = is_named[right.reshape(-1)] = True
    for indices, _ in ties.frozen:
        is_named[indices] = True
    for choice in ties.choices:
        for option in choice.options:
            for indices in (option.left, option.right, option.frozen):
                is_named[indices] = True
    return {
        (node.op_type, f"input {places[0]}" if places else "output")
        for axis in ties.space.axes
        if axis.size > 1 and not is_named[axis.indices].all()
        for places in [[n for n, value in enumerate(node.inputs) if value is axis.value]]
    }


@pytest.fixture(scope="module")
def models() -> list[ir.Model]:
    return [
        model
        for model in examples()
        if all(
            known_dims(value) is not None
            for value in (*model.graph[0].inputs, *model.graph[0].outputs)
            if value is not None and value.name
        )
    ]


def test_no_axis_is_forgotten(models: list[ir.Model]) -> None:
    assert len(models) > 1000
    found = {place for model in models for place in forgotten(model)}
    assert found == set(MAY_BE_LEFT)
