"""The Python-based onnxruntime backend, in a real server."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from trimton.core.errors import InputError

if TYPE_CHECKING:
    from tests.conftest import SharedTriton

pytestmark = pytest.mark.server

VALUES = {
    TensorProto.BOOL: np.array([[True], [False], [True]]),
    TensorProto.UINT8: np.array([[0], [7], [255]], np.uint8),
    TensorProto.UINT16: np.array([[0], [7], [65535]], np.uint16),
    TensorProto.UINT32: np.array([[0], [7], [2**32 - 1]], np.uint32),
    TensorProto.UINT64: np.array([[0], [7], [2**64 - 1]], np.uint64),
    TensorProto.INT8: np.array([[-128], [0], [127]], np.int8),
    TensorProto.INT16: np.array([[-(2**15)], [0], [2**15 - 1]], np.int16),
    TensorProto.INT32: np.array([[-(2**31)], [0], [2**31 - 1]], np.int32),
    TensorProto.INT64: np.array([[-(2**63)], [0], [2**63 - 1]], np.int64),
    TensorProto.FLOAT16: np.array([[-0.5], [65504.0], [6e-8]], np.float16),
    TensorProto.FLOAT: np.array([[-0.5], [3.4e38], [1e-45]], np.float32),
    TensorProto.DOUBLE: np.array([[-0.5], [1.7e308], [5e-324]], np.float64),
    TensorProto.STRING: np.array([[b"plain"], ["größe".encode()], [b""]], object),
}


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model from nodes and ``name: (element type, shape)``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def identity(element_type: int, shape: list[Any]) -> onnx.ModelProto:
    """``y = x``."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return make_model([node], {"x": (element_type, shape)}, {"y": (element_type, shape)})


def scale(factor: float) -> onnx.ModelProto:
    """``y = factor * x`` for x [batch, 2]."""
    return make_model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 2])},
        {"y": (TensorProto.FLOAT, ["batch", 2])},
        {"factor": np.float32(factor)},
    )


def lookup() -> onnx.ModelProto:
    """``y = table[i]`` for i [batch, 1]; an index beyond 4 makes the run fail."""
    return make_model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ["batch", 1])},
        {"y": (TensorProto.FLOAT, ["batch", 1])},
        {"table": np.arange(5, dtype=np.float32) * 10},
    )


@pytest.fixture(scope="module")
def all_types(shared_triton: SharedTriton) -> Iterator[str]:
    """A model that copies an input of each type to an output."""
    tensors = {t: TensorProto.DataType.Name(t).lower() for t in VALUES}
    model = make_model(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors.values()],
        {name: (t, ["batch", 1]) for t, name in tensors.items()},
        {f"{name}_out": (t, ["batch", 1]) for t, name in tensors.items()},
    )
    shared_triton.serve("all_types", model)
    yield "all_types"
    shared_triton.server.control.unload("all_types")


@pytest.mark.parametrize("element_type", VALUES, ids=TensorProto.DataType.Name)
def test_every_tensor_type_passes_unchanged(
    triton: SharedTriton, all_types: str, element_type: int
) -> None:
    output = f"{TensorProto.DataType.Name(element_type).lower()}_out"
    inputs = {TensorProto.DataType.Name(t).lower(): array for t, array in VALUES.items()}
    answer = triton.infer(all_types, inputs, [output])[output]
    assert answer.dtype == VALUES[element_type].dtype
    assert np.array_equal(answer, VALUES[element_type])


def test_type_that_triton_lacks_is_refused_in_one_sentence(triton: SharedTriton) -> None:
    with pytest.raises(InputError, match=r"'x' is tensor\(bfloat16\)[^\n]*\.$"):
        triton.serve("bfloat16", identity(TensorProto.BFLOAT16, ["batch", 1]))


def test_missing_configuration_is_completed_with_batching(triton: SharedTriton) -> None:
    triton.serve("completed", scale(2.0))
    config = triton.server.control.model_config("completed")
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 4
    assert "dynamic_batching" in config
    (x,), (y,) = config["input"], config["output"]
    assert (x["name"], x["data_type"], x["dims"]) == ("x", "TYPE_FP32", [2])
    assert (y["name"], y["data_type"], y["dims"]) == ("y", "TYPE_FP32", [2])


def test_fixed_first_dimension_means_no_batching(triton: SharedTriton) -> None:
    triton.serve("fixed", identity(TensorProto.FLOAT, [1, "width"]))
    config = triton.server.control.model_config("fixed")
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["input"][0]["dims"] == [1, -1]
    x = np.ones((1, 5), np.float32)
    assert np.array_equal(triton.infer("fixed", {"x": x})["y"], x)


def test_one_output_without_batch_dimension_means_no_batching(triton: SharedTriton) -> None:
    model = make_model(
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, ["batch", 2])},
        {"y": (TensorProto.FLOAT, ["batch", 2]), "sum": (TensorProto.FLOAT, [])},
    )
    triton.serve("with_sum", model)
    assert triton.server.control.model_config("with_sum")["max_batch_size"] == 0
    answer = triton.infer("with_sum", {"x": np.ones((3, 2), np.float32)})
    assert answer["sum"].shape == (1,)
    assert answer["sum"] == 6.0


def test_vector_per_batch_is_completed_with_a_reshape(triton: SharedTriton) -> None:
    triton.serve("vector", identity(TensorProto.FLOAT, ["batch"]))
    config = triton.server.control.model_config("vector")
    assert config["input"][0]["dims"] == [1]
    x = np.array([[1.0], [2.0]], np.float32)
    assert np.array_equal(triton.infer("vector", {"x": x})["y"], x)


def test_batching_that_the_model_cannot_do_is_refused(triton: SharedTriton) -> None:
    with pytest.raises(InputError, match="set max_batch_size: 0"):
        triton.serve(
            "cannot_batch",
            identity(TensorProto.FLOAT, [1, 2]),
            'backend: "onnxruntime"\nmax_batch_size: 8\n',
        )


def statistics_of(triton: SharedTriton, model: str) -> Any:
    """What Triton has counted of the only version of ``model``."""
    (statistics,) = triton.client.get_inference_statistics(model).model_stats
    return statistics


def test_requests_of_a_batch_run_as_one_and_a_bad_one_fails_alone(triton: SharedTriton) -> None:
    triton.serve(
        "lookup",
        lookup(),
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        "dynamic_batching { preferred_batch_size: [ 5 ] max_queue_delay_microseconds: 2000000 }\n",
    )
    sent = {"a": [1], "b": [2, 3], "bad": [99], "c": [4]}
    answers: queue.Queue[tuple[str, Any, InferenceServerException | None]] = queue.Queue()

    for key, indices in sent.items():
        array = np.array(indices, np.int64).reshape(-1, 1)
        triton.client.async_infer(
            "lookup",
            triton.tensors({"i": array}),
            lambda result, error, key=key: answers.put((key, result, error)),
        )
    received = {key: (result, error) for key, result, error in (answers.get() for _ in sent)}

    for key in ("a", "b", "c"):
        result, error = received[key]
        assert error is None
        assert result.as_numpy("y").ravel().tolist() == [10.0 * i for i in sent[key]]
    assert "indices element out of data bounds" in received["bad"][1].message()
    # Triton counts an execution after it has answered.
    deadline_s = time.monotonic() + 10
    while not (counted := statistics_of(triton, "lookup")).execution_count:
        assert time.monotonic() < deadline_s, "no execution was counted"
        time.sleep(0.01)
    assert counted.execution_count == 1
    assert counted.inference_count == 5  # all samples, in that one execution


def test_string_that_is_not_utf8_fails_alone(triton: SharedTriton) -> None:
    triton.serve("strings", identity(TensorProto.STRING, ["batch", 1]))
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        triton.infer("strings", {"x": np.array([[b"\xff\xfe"]], object)})
    x = np.array([[b"still here"]], object)
    assert triton.infer("strings", {"x": x})["y"] == x


def test_only_requested_outputs_are_returned(triton: SharedTriton) -> None:
    model = make_model(
        [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])],
        {"x": (TensorProto.FLOAT, ["batch", 1])},
        {"minus": (TensorProto.FLOAT, ["batch", 1]), "size": (TensorProto.FLOAT, ["batch", 1])},
    )
    triton.serve("two_outputs", model)
    x = {"x": np.array([[-3.0]], np.float32)}
    assert triton.infer("two_outputs", x, ["size"]) == {"size": 3.0}
    assert triton.infer("two_outputs", x) == {"minus": 3.0, "size": 3.0}


def test_versions_answer_with_their_own_model(triton: SharedTriton) -> None:
    triton.write("versions", scale(2.0), version=1)
    triton.write("versions", scale(3.0), version=2)
    triton.serve(
        "versions",
        scale(2.0),
        'backend: "onnxruntime"\nversion_policy { specific { versions: [ 1, 2 ] } }\n',
    )
    x = {"x": np.ones((1, 2), np.float32)}
    assert triton.infer("versions", x, version="1")["y"].tolist() == [[2.0, 2.0]]
    assert triton.infer("versions", x, version="2")["y"].tolist() == [[3.0, 3.0]]
    assert triton.infer("versions", x)["y"].tolist() == [[3.0, 3.0]]


def test_model_folder_with_external_data_is_served(triton: SharedTriton) -> None:
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 2])},
        {"y": (TensorProto.FLOAT, ["batch", 2])},
        {"w": np.array([[0, 1], [1, 0]], np.float32)},
    )
    folder = triton.repository / "external" / "1" / "model.onnx"
    folder.mkdir(parents=True)
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (folder / "weights.bin").stat().st_size == 16
    triton.load("external")
    x = np.array([[1.0, 2.0]], np.float32)
    assert triton.infer("external", {"x": x})["y"].tolist() == [[2.0, 1.0]]


def test_other_file_name_is_honoured(triton: SharedTriton) -> None:
    folder = triton.write("renamed", scale(5.0), 'default_model_filename: "five.onnx"\n')
    (folder / "model.onnx").rename(folder / "five.onnx")
    (triton.repository / "renamed" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\ndefault_model_filename: "five.onnx"\n'
    )
    triton.load("renamed")
    x = {"x": np.ones((1, 2), np.float32)}
    assert triton.infer("renamed", x)["y"].tolist() == [[5.0, 5.0]]


def optional_weight() -> onnx.ModelProto:
    """``y = x * w``, where w is an input with a value in the model."""
    return make_model(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [2]), "w": (TensorProto.FLOAT, [2])},
        {"y": (TensorProto.FLOAT, [2])},
        {"w": np.array([10, 20], np.float32)},
    )


OPTIONAL = """
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [
  {{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }},
  {{ name: "w" data_type: TYPE_FP32 dims: [ 2 ] optional: {optional} }}
]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }} ]
"""


def test_optional_input_has_the_models_value_until_it_is_given(triton: SharedTriton) -> None:
    config = OPTIONAL.format(max_batch_size=0, optional="true")
    triton.serve("optional", optional_weight(), config)
    x = np.array([1.0, 1.0], np.float32)
    assert triton.infer("optional", {"x": x})["y"].tolist() == [10.0, 20.0]
    w = np.array([3.0, 4.0], np.float32)
    assert triton.infer("optional", {"x": x, "w": w})["y"].tolist() == [3.0, 4.0]


def test_parameters_of_the_native_backend_are_accepted(triton: SharedTriton) -> None:
    parameters = {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "execution_mode": "1",
        "enable_mem_arena": "false",
        "enable_mem_pattern": "false",
        "session.use_device_allocator_for_initializers": "1",
        "memory.enable_memory_arena_shrinkage": "",
    }
    lines = [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    ]
    level = "optimization { graph { level: 1 } }"
    triton.serve("parameters", scale(2.0), "\n".join(['backend: "onnxruntime"', level, *lines]))
    x = {"x": np.ones((1, 2), np.float32)}
    assert triton.infer("parameters", x)["y"].tolist() == [[2.0, 2.0]]


def contract(name: str, data_type: str, width: int, *, output: str) -> str:
    """Configured inputs and outputs."""
    return (
        f'input [ {{ name: "{name}" data_type: {data_type} dims: [ {width} ] }} ]\n'
        f'output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ 2 ] }} ]\nmax_batch_size: 4\n'
    )


REFUSED = {
    "an execution mode that does not exist": (
        'parameters { key: "execution_mode" value { string_value: "7" } }',
        "parameter 'execution_mode' cannot be '7'",
    ),
    "a thread count that is no number": (
        'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
        "parameter 'intra_op_thread_count' cannot be 'many'",
    ),
    "an accelerator": (
        """optimization { execution_accelerators {
          cpu_execution_accelerator : [ { name : "openvino" } ] } }""",
        "execution_accelerators is not available",
    ),
    "an input of another type": (
        contract("x", "TYPE_FP16", 2, output="y"),
        "configuration expects datatype TYPE_FP16 for input 'x', model provides TYPE_FP32",
    ),
    "an input of another shape": (
        contract("x", "TYPE_FP32", 3, output="y"),
        r"input 'x' has shape \[-1, 2\] in the model, but \[-1, 3\] in the configuration",
    ),
    "an output that the model lacks": (
        contract("x", "TYPE_FP32", 2, output="z"),
        "model has no output 'z'; it has y",
    ),
    "an input that the model requires and the configuration lacks": (
        contract("other", "TYPE_FP32", 2, output="y"),
        "model requires input 'x', which the configuration lacks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(triton: SharedTriton, case: str) -> None:
    config, message = REFUSED[case]
    name = case.replace(" ", "_")
    with pytest.raises(InputError, match=message) as caught:
        triton.serve(name, scale(2.0), f'backend: "onnxruntime"\n{config}\n')
    assert "\n" not in str(caught.value)
    assert ".py" not in str(caught.value)


@pytest.mark.parametrize(
    ("max_batch_size", "optional", "message"),
    [
        (4, "true", "not supported for models that support batching"),
        (0, "false", "input 'w' has a value in the model; set optional: true"),
    ],
)
def test_optional_inputs_are_refused_where_the_native_backend_refuses(
    triton: SharedTriton, max_batch_size: int, optional: str, message: str
) -> None:
    config = OPTIONAL.format(max_batch_size=max_batch_size, optional=optional)
    with pytest.raises(InputError, match=message):
        triton.serve(f"optional_{max_batch_size}_{optional}", optional_weight(), config)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "ONNX Runtime cannot load it"), (b"\x08\x07garbage", "ONNX Runtime cannot load it")],
    ids=["empty", "garbage"],
)
def test_file_that_is_no_model_is_a_load_error_in_one_sentence(
    triton: SharedTriton, content: bytes, message: str, request: pytest.FixtureRequest
) -> None:
    name = f"broken_{request.node.callspec.id}"
    folder = triton.repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        triton.load(name)
    assert f"{name}/1/model.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(triton: SharedTriton) -> None:
    (triton.repository / "without_file" / "1").mkdir(parents=True)
    (triton.repository / "without_file" / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    with pytest.raises(InputError, match=r"unable to find '.*without_file/1/model\.onnx'"):
        triton.load("without_file")


def test_model_that_drops_the_batch_dimension_is_an_error_of_the_request(
    triton: SharedTriton,
) -> None:
    model = make_model(
        [helper.make_node("Unique", ["x"], ["y"], axis=0)],
        {"x": (TensorProto.FLOAT, ["batch", 1])},
        {"y": (TensorProto.FLOAT, ["unique", 1])},
    )
    triton.serve("unique", model)
    with pytest.raises(InferenceServerException, match="has 1 rows for a batch of 2"):
        triton.infer("unique", {"x": np.ones((2, 1), np.float32)})
