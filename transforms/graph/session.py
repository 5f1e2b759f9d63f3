"""Running a model in ONNX Runtime, from memory or, where it is too large, from a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from trimton.transforms.graph.tensors import all_nodes, all_tensors

Array = npt.NDArray[Any]

# A serialised protobuf message ends at 2 GiB; some room is left for the graph itself.
MAX_EMBEDDED_BYTES = 2**31 - 2**26

# What ONNX Runtime raises, for a model it cannot load and for inputs it cannot take.
ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_state.EPFail,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)
NoKernelError: type[Exception] = ort_state.NotImplemented

# The operator domains that ONNX Runtime's own builds bring along.
_BUILT_IN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx.ml",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "org.pytorch.aten",
    }
)
_FATAL_ONLY = 4


def weight_bytes(model: ir.Model) -> int:
    """The bytes of all constant tensors of ``model``."""
    return sum(tensor.nbytes for tensor in all_tensors(model))


def custom_operators(model: ir.Model) -> tuple[str, ...]:
    """The operators (``domain::type``) that ONNX Runtime does not know by itself, sorted."""
    known = {(function.domain, function.name) for function in model.functions.values()}
    return tuple(
        sorted(
            {
                f"{node.domain}::{node.op_type}"
                for node in all_nodes(model)
                if node.domain not in _BUILT_IN_DOMAINS and (node.domain, node.op_type) not in known
            }
        )
    )


def open_session(
    source: ir.Model | Path,
    *,
    optimise: bool = False,
    profile: Path | None = None,
    stop_spinning: bool = False,
    threads: int | None = None,
) -> ort.InferenceSession:
    """A session on the CPU; ``optimise`` lets ONNX Runtime rewrite the graph first.

    ``profile`` starts the names of files that the session writes the times of its kernels to.
    ``stop_spinning`` lets its threads sleep between runs, so that those of one session do not
    take time from another. ``threads`` compute one operator (None: as many as there are cores).

    Raises one of ORT_ERRORS where ONNX Runtime refuses the model.
    """
    options = _options(optimise, profile, stop_spinning, threads)
    if isinstance(source, Path):
        return _session(str(source), options)
    if weight_bytes(source) < MAX_EMBEDDED_BYTES:
        return _session(ir.serde.serialize_model(source).SerializeToString(), options)
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(source, path, external_data="model.data")
        return _session(str(path), options)


def run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Outputs by name: arrays, or lists and dictionaries for sequences and maps.

    Inputs that ``feeds`` lacks keep their defaults. Raises one of ORT_ERRORS.
    """
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: np.asarray(feed) for name, feed in feeds.items()})
    return dict(zip(names, values, strict=True))


def _session(source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _options(
    optimise: bool, profile: Path | None, stop_spinning: bool, threads: int | None
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if threads is not None:
        options.intra_op_num_threads = threads
    if stop_spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
