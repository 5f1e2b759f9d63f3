"""Saving an ONNX model: validated first, then put in place in one step."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.core.files import replacing, replacing_folder
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.load import MODEL_FILE
from trimton.transforms.graph.session import MAX_EMBEDDED_BYTES, weight_bytes
from trimton.transforms.graph.validate import validate_file

_DIGEST_DIGITS = 16
# What a folder must be called to be replaced: any other may hold more than a model.
FOLDER_SUFFIX = ".onnx"


def save_model(
    model: ir.Model,
    path: Path,
    *,
    external_data: bool | None = None,
) -> None:
    """Write ``model`` to ``path``, complete and valid, or leave ``path`` as it was.

    ``external_data`` None stores weights outside only where one file cannot hold them (2 GB).
    They go to ``<stem>.<digest>.data`` beside the model: the name belongs to the contents, so
    the model in place never meets another model's data, whenever the writing is interrupted.
    If ``path`` is a folder called ``*.onnx`` (Triton's layout for such models), it is replaced
    as a whole. Raises TransformError for an invalid model; InputError for any other folder;
    InputError or InfrastructureError where the disk refuses.
    """
    path = Path(path)
    outside = weight_bytes(model) >= MAX_EMBEDDED_BYTES if external_data is None else external_data
    if path.is_dir():
        if path.suffix != FOLDER_SUFFIX:
            raise InputError(f"{path}: is a folder; name the .onnx file to write.")
        with replacing_folder(path) as folder:
            _write(model, folder / MODEL_FILE, outside)
    else:
        _write(model, path, outside)


def _write(model: ir.Model, path: Path, outside: bool) -> None:
    data = _data_file(model, path) if outside else None
    is_new = data is not None and not data.exists()
    try:
        with replacing(path) as temporary:
            ir.save(
                model,
                temporary,
                format="protobuf",
                external_data=None if data is None else data.name,
            )
            validate_file(temporary, model)
    except BaseException:
        if data is not None and is_new:
            data.unlink(missing_ok=True)
        raise
    _remove_stale_data(path, keep=data)


def _data_file(model: ir.Model, path: Path) -> Path:
    return path.with_name(f"{path.stem}.{model_digest(model)[:_DIGEST_DIGITS]}.data")


def _remove_stale_data(path: Path, keep: Path | None) -> None:
    """Remove the data of the models that stood at ``path`` before."""
    ours = re.compile(rf"{re.escape(path.stem)}\.[0-9a-f]{{{_DIGEST_DIGITS}}}\.data")
    for file in path.parent.iterdir():
        if ours.fullmatch(file.name) and file != keep:
            file.unlink(missing_ok=True)
