"""ONNX Runtime in this process: a target that needs no server.

It shows what the model itself costs: no protocol, no queue, no batching across requests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.perf.targets.tensors import Array, TensorSpec

# ONNX Runtime's name of an element type -> KServe datatype.
_DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}

# Its exceptions derive from Exception one by one, without a base of their own.
RUN_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_LOAD_ERRORS = (
    *RUN_ERRORS,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
)


class InProcessModel:
    """A model file as an ONNX Runtime session on the CPU.

    ``intra_op_threads`` is the number of threads inside one inference; across inferences the
    callers bring their own.
    """

    def __init__(self, path: Path, *, intra_op_threads: int = 1) -> None:
        if not path.exists():
            raise InputError(f"{path}: no such file; give an ONNX model.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as error:
            raise InputError(f"{path}: ONNX Runtime cannot load it ({_reason(error)}).") from error
        self.path = path
        self.inputs = tuple(_spec(path, item) for item in self._session.get_inputs())
        self.outputs = tuple(_spec(path, item) for item in self._session.get_outputs())

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name; InputError when the model refuses the inputs."""
        try:
            outputs = self._session.run(None, dict(inputs))
        except (*RUN_ERRORS, ValueError) as error:
            raise InputError(f"{self.path}: refuses the inputs ({_reason(error)}).") from error
        return {spec.name: value for spec, value in zip(self.outputs, outputs, strict=True)}


def _spec(path: Path, item: Any) -> TensorSpec:
    element = item.type.removeprefix("tensor(").removesuffix(")")
    if element not in _DATATYPES:
        raise UnsupportedModelError(
            f"{path}: {item.name!r} is of type {item.type}, which cannot be sent as a tensor of "
            f"KServe v2 (types: {', '.join(_DATATYPES)})."
        )
    shape = tuple(n if isinstance(n, int) else None for n in item.shape)
    return TensorSpec(item.name, _DATATYPES[element], shape)


def _reason(error: Exception) -> str:
    """The last part of ONNX Runtime's message ("[ONNXRuntimeError] : 2 : CODE : text")."""
    text = str(error).rsplit(" : ", 1)[-1]
    return " ".join(text.split()).rstrip(".")
