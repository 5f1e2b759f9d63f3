"""Triton Python-based backend ``onnxruntime``: the native backend's contract, in Python.

Triton loads this file for every model whose config.pbtxt says ``backend: "onnxruntime"`` when
``onnxruntime/model.py`` lies in its backend directory. Name, configuration keys, defaults,
completion and checks follow triton-inference-server/onnxruntime_backend, so one repository
serves here and on a production Triton. It runs in Triton's Python stub and therefore imports
nothing but the standard library, numpy, onnxruntime and the stub's own module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

# ONNX Runtime's tensor types and Triton's. The native backend knows no others (no bfloat16).
DATA_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}

# config.pbtxt: optimization { graph { level } }; unset is 0.
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

# What an instance's kind runs on. Triton resolves KIND_AUTO before the backend sees it.
PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider"}

# Triton's default for --backend-config=default-max-batch-size.
DEFAULT_MAX_BATCH_SIZE = 4

# Classes without a common base; pybind11 and the binding's own checks add the standard ones.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(v for v in vars(ort_state).values() if isinstance(v, type) and issubclass(v, Exception)),
    *(RuntimeError, ValueError, TypeError),
)


class TritonPythonModel:
    """One instance of one version of a model; Triton runs each in a process of its own."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Complete inputs, outputs, batching from the model, where config.pbtxt lacks them."""
        values = config.as_dict()
        if values["input"] and values["output"]:
            return config
        session = open_session(pb_utils.get_model_dir(), values)
        complete_config(config, session.get_inputs(), session.get_outputs())
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and check it against the configuration."""
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        kind, device = args["model_instance_kind"], args["model_instance_device_id"]
        self._session = open_session(folder, config, kind, device)
        check_supported(config)
        self._run_options = run_options(config)
        self._batches = config["max_batch_size"] > 0
        inputs = self._session.get_inputs()
        overridable = self._session.get_overridable_initializers()
        check_inputs(config, inputs, overridable)
        check_outputs(config, self._session.get_outputs())
        self._strings = {i.name for i in (*inputs, *overridable) if i.type == "tensor(string)"}
        self._scalars = {i.name for i in (*inputs, *overridable) if not i.shape}
        # A scalar output takes the shape that the configuration gives it.
        self._scalar_shapes = {o["name"]: o["dims"] for o in config["output"]}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer ``requests``, those of a dynamic batch by one run; a bad one fails alone."""
        responses: dict[int, Any] = {}
        jobs: list[Job] = []
        for index, request in enumerate(requests):
            try:
                feed = self._read(request)
            except ValueError as error:
                responses[index] = failure(error)
            else:
                jobs.append(Job(index, feed, tuple(request.requested_output_names())))
        for batch in [jobs] if self._batches and jobs else [[job] for job in jobs]:
            responses.update(self._answer(batch))
        return [responses[index] for index in range(len(requests))]

    def finalize(self) -> None:
        """Free the model's memory."""
        del self._session

    def _read(self, request: Any) -> dict[str, Any]:
        """A request's arrays by input name, as ONNX Runtime takes them."""
        feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        for name in self._strings.intersection(feed):
            feed[name] = decoded(name, feed[name])
        for name in self._scalars.intersection(feed):
            feed[name] = feed[name].reshape(())
        return feed

    def _answer(self, jobs: list[Job]) -> Iterator[tuple[int, Any]]:
        """Responses by place. When a run of several fails, each is run alone to find the bad."""
        try:
            yield from self._run(jobs)
        except ORT_ERRORS as error:
            if len(jobs) == 1:
                yield jobs[0].place, failure(error)
                return
            for job in jobs:
                yield from self._answer([job])

    def _run(self, jobs: list[Job]) -> list[tuple[int, Any]]:
        names = list(dict.fromkeys(name for job in jobs for name in job.outputs))
        feed = jobs[0].feed if len(jobs) == 1 else concatenated([job.feed for job in jobs])
        arrays = dict(zip(names, self._session.run(names, feed, self._run_options), strict=True))
        for name, array in arrays.items():
            if array.ndim == 0:
                arrays[name] = array.reshape(self._scalar_shapes[name])
        if self._batches:
            check_rows(arrays, sum(job.rows for job in jobs))
        if len(jobs) == 1:
            return [(jobs[0].place, response(arrays, jobs[0].outputs))]
        ends = accumulate((job.rows for job in jobs), initial=0)
        return [
            (job.place, response({n: a[start:end] for n, a in arrays.items()}, job.outputs))
            for job, (start, end) in zip(jobs, pairwise(ends), strict=True)
        ]


class Job(NamedTuple):
    """One request of a batch: its position, its arrays and the outputs it asks for."""

    place: int
    feed: dict[str, Any]
    outputs: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many samples it holds (Triton has checked that all inputs agree)."""
        return len(next(iter(self.feed.values())))


def concatenated(feeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of several requests along the batch dimension."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def check_rows(arrays: Mapping[str, Any], rows: int) -> None:
    """Raise ValueError unless every output has one row for each sample of the batch."""
    for name, array in arrays.items():
        if len(array) != rows:
            raise ValueError(
                f"output {name!r} has {len(array)} rows for a batch of {rows}; a model that "
                "does not keep the batch dimension needs max_batch_size: 0"
            )


def decoded(name: str, array: Any) -> Any:
    """Triton's bytes as the ``str`` objects that ONNX Runtime's binding takes; UTF-8 only."""
    try:
        strings = [item.decode("utf-8") for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise ValueError(f"input {name!r} holds a string that is not UTF-8 ({error})") from error
    result = np.empty(len(strings), dtype=object)
    result[:] = strings
    return result.reshape(array.shape)


def response(arrays: Mapping[str, Any], names: Sequence[str]) -> Any:
    """A response with the arrays called ``names``."""
    tensors = [pb_utils.Tensor(name, arrays[name]) for name in names]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def failure(error: BaseException) -> Any:
    """A response that says what is wrong with its request."""
    message = short(error)
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    )


def short(error: BaseException) -> str:
    """ONNX Runtime's message on one line, without its tag ``[ONNXRuntimeError] : 2 : NAME :``."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text


# Loading


def open_session(
    folder: str, config: Mapping[str, Any], kind: str = "CPU", device: str = "0"
) -> ort.InferenceSession:
    """A session on the model in the version's ``folder``, with the options of ``config``."""
    path = os.path.join(folder, config["default_model_filename"] or "model.onnx")
    if os.path.isdir(path):  # a model with external data is a folder
        path = os.path.join(path, "model.onnx")
    if not os.path.isfile(path):
        raise refusal(config, f"unable to find {path!r}; put the model there")
    try:
        return ort.InferenceSession(
            path, session_options(config), providers=[provider(config, kind, device)]
        )
    except ORT_ERRORS as error:
        raise refusal(config, f"{path}: ONNX Runtime cannot load it ({short(error)})") from None


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """The options that the configuration's keys stand for, with the native defaults."""
    options = ort.SessionOptions()
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    # An unknown level means the default in the native backend, too.
    options.graph_optimization_level = GRAPH_LEVELS.get(level, GRAPH_LEVELS[0])
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    for key, (parse, apply) in PARAMETERS.items():
        text = parameter(config, key)
        if text is None:
            continue
        try:
            apply(options, parse(text))
        except (KeyError, ValueError):
            raise refusal(config, f"parameter {key!r} cannot be {text!r}") from None
    return options


def run_options(config: Mapping[str, Any]) -> ort.RunOptions | None:
    """Options of every run; None where the configuration has none."""
    key = "memory.enable_memory_arena_shrinkage"
    value = parameter(config, key)
    if value is None:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(key, value)
    return options


def provider(config: Mapping[str, Any], kind: str, device: str) -> tuple[str, dict[str, str]]:
    """The execution provider of an instance of ``kind``, with its options."""
    name = PROVIDERS[kind]
    if name not in ort.get_available_providers():
        raise refusal(
            config,
            f"KIND_{kind} needs ONNX Runtime's {name}, which this installation lacks; "
            "set instance_group [ { kind: KIND_CPU } ]",
        )
    return name, ({"device_id": device} if kind == "GPU" else {})


def parameter(config: Mapping[str, Any], key: str) -> str | None:
    """The text of ``parameters { key value { string_value } }``."""
    entry = config.get("parameters", {}).get(key)
    return None if entry is None else str(entry["string_value"])


def refusal(config: Mapping[str, Any], reason: str) -> Exception:
    """The exception that makes a load fail with one sentence."""
    error: Exception = pb_utils.TritonModelException(
        f"unable to load model {config['name']!r}: {reason}"
    )
    return error


BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
EXECUTION_MODES = {
    "0": ort.ExecutionMode.ORT_SEQUENTIAL,
    "1": ort.ExecutionMode.ORT_PARALLEL,
}
INITIALIZERS_KEY = "session.use_device_allocator_for_initializers"


def attribute(name: str) -> Callable[[ort.SessionOptions, Any], None]:
    """A setter of the session option ``name``."""
    return lambda options, value: setattr(options, name, value)


def boolean(text: str) -> bool:
    """A boolean as the native backend reads it."""
    return BOOLEANS[text.lower()]


# Parameter of config.pbtxt -> how its text is read, what is done with the value.
PARAMETERS: dict[str, tuple[Callable[[str], Any], Callable[[ort.SessionOptions, Any], None]]] = {
    "intra_op_thread_count": (int, attribute("intra_op_num_threads")),
    "inter_op_thread_count": (int, attribute("inter_op_num_threads")),
    "execution_mode": (EXECUTION_MODES.__getitem__, attribute("execution_mode")),
    "enable_mem_arena": (boolean, attribute("enable_cpu_mem_arena")),
    "enable_mem_pattern": (boolean, attribute("enable_mem_pattern")),
    INITIALIZERS_KEY: (
        str,
        lambda options, value: options.add_session_config_entry(INITIALIZERS_KEY, value),
    ),
}


# The configuration and the model


def dims(shape: Sequence[Any]) -> list[int]:
    """A shape of ONNX Runtime (names or None for free dimensions) as Triton writes it."""
    return [d if isinstance(d, int) and d >= 0 else -1 for d in shape]


def complete_config(config: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Fill in what is missing, deciding on batching as the native backend does.

    A model can batch if dimension 0 of every input and output is free. Then an unset
    max_batch_size becomes DEFAULT_MAX_BATCH_SIZE, with dynamic batching where no scheduler is set.
    """
    values = config.as_dict()
    batches = all(dims(t.shape)[:1] == [-1] for t in (*inputs, *outputs))
    if values["max_batch_size"] > 0 and not batches:
        raise refusal(
            values,
            f"max_batch_size is {values['max_batch_size']}, but dimension 0 of its inputs and "
            "outputs is not free; set max_batch_size: 0",
        )
    if batches and values["max_batch_size"] == 0:
        config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
    if values["max_batch_size"] > 1 and "sequence_batching" not in values:
        config.set_dynamic_batching()
    for key, tensors in (("input", inputs), ("output", outputs)):
        if not values[key]:
            values[key].extend(io_config(values, tensor, batches) for tensor in tensors)


def io_config(config: Mapping[str, Any], tensor: Any, batches: bool) -> dict[str, Any]:
    """The entry of config.pbtxt for an input or output of the model."""
    shape = dims(tensor.shape)[1 if batches else 0 :]
    entry = {"name": tensor.name, "data_type": data_type(config, tensor), "dims": shape or [1]}
    # Triton's shapes have at least one dimension besides the batch.
    return entry | ({"reshape": {"shape": []}} if batches and not shape else {})


def data_type(config: Mapping[str, Any], tensor: Any) -> str:
    """Triton's name for the tensor's type."""
    if tensor.type not in DATA_TYPES:
        raise refusal(config, f"{tensor.name!r} is {tensor.type}, which Triton's backend has not")
    return DATA_TYPES[tensor.type]


def check_supported(config: Mapping[str, Any]) -> None:
    """Refuse what the native backend does and this one cannot, rather than ignore it."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    asked = {
        "execution_accelerators": any(accelerators.values()),
        "batch_input": config.get("batch_input"),
        "batch_output": config.get("batch_output"),
        "allow_ragged_batch": any(e.get("allow_ragged_batch", False) for e in config["input"]),
        "sequence_batching state": config.get("sequence_batching", {}).get("state"),
    }
    for key, value in asked.items():
        if value:
            raise refusal(config, f"{key} is not available in this backend; remove it")


def check_inputs(
    config: Mapping[str, Any], inputs: Sequence[Any], overridable: Sequence[Any]
) -> None:
    """Refuse a configuration whose inputs are not the model's.

    ``overridable`` are inputs with a value in the model: they may be optional inputs.
    """
    optional = {entry["name"] for entry in config["input"] if entry.get("optional", False)}
    controls = config.get("sequence_batching", {}).get("control_input", [])
    required = {entry["name"] for entry in (*config["input"], *controls)} - optional
    if optional and config["max_batch_size"] > 0:
        raise refusal(
            config,
            f"optional input {min(optional)!r} is not supported for models that support batching; "
            "set max_batch_size: 0",
        )
    for name in sorted({tensor.name for tensor in inputs} - required):
        fault = "makes optional" if name in optional else "lacks"
        raise refusal(config, f"model requires input {name!r}, which the configuration {fault}")
    for name in sorted({tensor.name for tensor in overridable} & required):
        raise refusal(config, f"input {name!r} has a value in the model; set optional: true for it")
    check_tensors(config, "input", (*inputs, *overridable))


def check_outputs(config: Mapping[str, Any], outputs: Sequence[Any]) -> None:
    """Refuse a configuration whose outputs the model does not have; it may list fewer."""
    check_tensors(config, "output", outputs)


def check_tensors(config: Mapping[str, Any], key: str, tensors: Sequence[Any]) -> None:
    """Compare the configuration's inputs or outputs with the model's: names, types, shapes."""
    known = {tensor.name: tensor for tensor in tensors}
    for entry in config[key]:
        tensor = known.get(entry["name"])
        if tensor is None:
            raise refusal(
                config, f"model has no {key} {entry['name']!r}; it has {', '.join(sorted(known))}"
            )
        provided = data_type(config, tensor)
        if entry["data_type"] != provided:
            raise refusal(
                config,
                f"configuration expects datatype {entry['data_type']} for {key} "
                f"{entry['name']!r}, model provides {provided}",
            )
        expected = list(entry.get("reshape", entry).get("shape", entry["dims"]))
        expected = [-1] * (config["max_batch_size"] > 0) + [int(d) for d in expected]
        if not fits(dims(tensor.shape), expected, exactly=key == "output"):
            raise refusal(
                config,
                f"{key} {entry['name']!r} has shape {dims(tensor.shape)} in the model, but "
                f"{expected} in the configuration (with the batch dimension if max_batch_size > 0)",
            )


def fits(model: Sequence[int], expected: Sequence[int], exactly: bool) -> bool:
    """Whether a configured shape suits the model's; ``exactly``: free dimensions must agree too."""
    if not model:  # a scalar is given as ones
        return all(d == 1 for d in expected)
    if len(model) != len(expected):
        return False
    return all(m == e or (m == -1 and not exactly) for m, e in zip(model, expected, strict=True))
