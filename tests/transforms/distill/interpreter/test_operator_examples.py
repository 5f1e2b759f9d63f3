"""Every operator of the table on ONNX's own examples of it, beside the answers that they bring."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from trimton.core.errors import TrimtonError
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.interpreter.dtypes import TORCH_TYPES, to_array, to_tensor
from trimton.transforms.distill.interpreter.operators import OPERATORS
from trimton.transforms.graph.difference import relative_difference

BODIES = {("", "If"), ("", "Loop"), ("", "Scan")}
# The answers are rounded, too: in half precision to 11 bits, in bfloat16 to 8.
TOLERANCES = {"float16": 2e-3, "bfloat16": 1e-2}
TOLERANCE = 2e-4

# Examples that are not met, and why.
EXCEPTIONS = {
    **dict.fromkeys(
        (
            "test_resize_downsample_scales_cubic_align_corners",
            "test_resize_downsample_scales_linear_align_corners",
        ),
        "ONNX Runtime takes the whole number of elements where the example takes size * scale",
    ),
    **dict.fromkeys(
        (
            "test_reduce_max_empty_set",
            "test_reduce_max_empty_set_bool",
            "test_reduce_min_empty_set",
        ),
        "there is no largest element of nothing, and nothing to learn from it",
    ),
    **dict.fromkeys(
        ("test_max_uint16", "test_min_uint16", "test_top_k_uint64"),
        "neither torch nor ONNX Runtime computes with these types",
    ),
    "test_scan_sum": "a Scan of operator set 8, which is refused",
}


def examples() -> Iterator[tuple[str, onnx.ModelProto, list[Any], list[Any]]]:
    """Name, model, inputs and answers of all examples that use operators of the table only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        graph = case.model.graph
        used = {(node.domain, node.op_type) for node in graph.node}
        if not used <= set(OPERATORS) | BODIES:
            continue
        given, answers = ([array(item) for item in part] for part in case.data_sets[0])
        if case.name.startswith("test_training_dropout") and "zero_ratio" not in case.name:
            continue  # random
        kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
        if all(kind and has_type(ir.DataType(kind)) for kind in kinds):
            yield case.name, case.model, given, answers


def has_type(kind: ir.DataType) -> bool:
    return kind in TORCH_TYPES and kind.bitwidth >= 8


def array(item: Any) -> Any:
    return onnx.numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def failure(model: onnx.ModelProto, given: list[Any], answers: list[Any]) -> str:
    """How the module differs from the answers; empty where it does not."""
    names = [value.name for value in model.graph.input]
    feeds = {name: to_tensor(np.asarray(a)) for name, a in zip(names, given, strict=True)}
    try:
        with torch.no_grad():
            made = OnnxModule(ir.from_proto(model)).eval()(feeds)
    except TrimtonError as error:
        return str(error)
    for (name, tensor), answer in zip(made.items(), answers, strict=True):
        found, expected = to_array(tensor), np.asarray(answer)
        wide = np.float64 if expected.dtype.kind in "fV" else expected.dtype
        difference = relative_difference(expected.astype(wide), found.astype(wide))
        if not difference <= TOLERANCES.get(expected.dtype.name, TOLERANCE):
            return f"{name} differs by {difference:.2g}"
    return ""


def test_every_operator_gives_the_answers_of_its_examples() -> None:
    failures, seen = {}, set()
    for name, model, given, answers in examples():
        seen |= {(node.domain, node.op_type) for node in model.graph.node}
        if reason := failure(model, given, answers):
            failures[name] = reason
    assert {name: why for name, why in failures.items() if name not in EXCEPTIONS} == {}
    assert set(failures) == set(EXCEPTIONS)
    assert set(OPERATORS) - seen == {("", "GlobalLpPool")}, "an operator without any example"
