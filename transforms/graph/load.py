"""Loading an ONNX model: every way in which a file can be wrong is one clear sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import checker

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.external import map_external_data
from trimton.transforms.graph.normalise import normalise

MIN_OPSET = 7
MODEL_FILE = "model.onnx"


def load_model(path: Path, *, keep_default_inputs: bool = False) -> ir.Model:
    """Read the ONNX model in ``path`` and bring it into the normal form (see normalise).

    ``path`` is a file, or a folder that holds ``model.onnx`` and its data. External data is
    mapped, not read. Raises InputError where the file is missing, empty, truncated, no ONNX,
    rejected by ONNX's checker or without its external data; UnsupportedModelError for an
    operator set older than 7.
    """
    file = model_file(Path(path))
    proto = _parse(file)
    _require_opset(file, proto)
    _check(file, proto)
    model = ir.serde.deserialize_model(proto)
    map_external_data(model, file)
    return normalise(model, keep_default_inputs=keep_default_inputs)


def model_file(path: Path) -> Path:
    """The ``.onnx`` file that ``path`` means: itself, or ``model.onnx`` in that folder."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give an .onnx model.")
    if not path.is_dir():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    raise InputError(f"{path}: is a folder without {MODEL_FILE}; give the .onnx file itself.")


def _parse(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}).") from error
    if not data:
        raise InputError(f"{path}: is empty; export or copy the model again.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InputError(
            f"{path}: is no ONNX model, or only a part of one; export or copy it again."
        ) from error
    # Protobuf accepts a file cut between two fields, and some texts: what is left is hollow.
    if not proto.HasField("graph") or not proto.graph.output or not proto.opset_import:
        raise InputError(
            f"{path}: holds no complete ONNX graph (no outputs or no operator set), so it is no "
            f"ONNX model or only a part of one; export or copy it again."
        )
    return proto


def _require_opset(path: Path, proto: onnx.ModelProto) -> None:
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version < MIN_OPSET:
            raise UnsupportedModelError(
                f"{path}: uses operator set {entry.version}, and Trimton needs {MIN_OPSET} or "
                f"newer; convert it with onnx.version_converter."
            )


def _check(path: Path, proto: onnx.ModelProto) -> None:
    tensors = list(_tensors(proto.graph))
    is_external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
    try:
        checker.check_model(_without_external_data(proto) if is_external else str(path))
    except checker.ValidationError as error:
        raise InputError(
            f"{path}: ONNX's checker rejects it: {one_line(str(error))}; export it again."
        ) from error


def _without_external_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose external tensors are empty.

    The checker would refuse data files that are links, which is how package and model caches
    store them; whether the files are there and long enough is checked when they are mapped.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in _tensors(copy.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
    return copy


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)


def one_line(text: str) -> str:
    """``text`` on one line, without a full stop at its end and without the checker's dumps."""
    return " ".join(text.split()).rstrip(".")
