"""External data: weights stored in files beside the model, mapped and checked at once.

Each data file is memory-mapped once, and every tensor is a view into it. So nothing is read
before it is used, a thousand tensors cost one file descriptor, and a model loaded from a file
stays valid when that file is replaced (the mapping keeps the old contents).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.tensors import map_tensors

Bytes = npt.NDArray[np.uint8]


def map_external_data(model: ir.Model, path: Path) -> None:
    """Replace the external tensors of ``model``, read from ``path``, by views of their files.

    Raises InputError for a data file that is missing, too short, or outside the model's folder.
    """
    files: dict[str, Bytes] = {}

    def mapped(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        location = str(tensor.location)
        if location not in files:
            files[location] = _map_file(path, location)
        return _view(path, tensor, files)

    map_tensors(model, mapped)


def _map_file(path: Path, location: str) -> Bytes:
    folder = path.parent
    file = folder / location
    inside = not Path(location).is_absolute() and ".." not in Path(location).parts
    if not inside:
        raise InputError(
            f"{path}: stores weights in {location!r}, outside its own folder; "
            f"move the data beside the model."
        )
    if not file.is_file():
        raise InputError(
            f"{path}: stores weights in {location!r}, which is missing from {folder}; "
            f"copy that file too."
        )
    if file.stat().st_size == 0:
        return np.zeros(0, np.uint8)
    return np.memmap(file, dtype=np.uint8, mode="r")


def _view(path: Path, tensor: ir.ExternalTensor, files: Mapping[str, Bytes]) -> ir.TensorProtocol:
    location = str(tensor.location)
    start = tensor.offset or 0
    end = start + tensor.nbytes
    if tensor.length not in (None, 0, tensor.nbytes):
        raise InputError(
            f"{path}: weight {tensor.name!r} says it has {tensor.length} bytes in {location!r}, "
            f"but its type and shape need {tensor.nbytes}; export the model again."
        )
    data = files[location]
    if end > len(data):
        raise InputError(
            f"{path}: its data file {location!r} has {len(data)} bytes, but weight "
            f"{tensor.name!r} ends at byte {end}; copy the whole file."
        )
    raw = data[start:end]
    kept: dict[str, Any] = {
        "name": tensor.name,
        "doc_string": tensor.doc_string,
        "metadata_props": dict(tensor.metadata_props),
    }
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(raw, tensor.dtype, shape=tensor.shape, **kept)
    array = raw.view(tensor.dtype.numpy()).reshape(tensor.shape.numpy())
    return ir.Tensor(array, dtype=tensor.dtype, shape=tensor.shape, **kept)
