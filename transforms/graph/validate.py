"""Whether a model is valid: ONNX's checker, then a session of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx import checker, shape_inference

from trimton.core.errors import TransformError
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.session import (
    ORT_ERRORS,
    NoKernelError,
    custom_operators,
    open_session,
)


def validate_file(path: Path, model: ir.Model, *, check_shapes: bool = True) -> None:
    """Check the file ``path`` just written from ``model``.

    ``check_shapes`` has ONNX infer and compare every shape, too. A model with operators that
    ONNX Runtime does not bring along, or has no CPU kernel for, is only checked, not loaded.
    Raises TransformError with the checker's or the runtime's reason.
    """
    try:
        checker.check_model(str(path), full_check=check_shapes)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise TransformError(
            f"the model made is not valid ONNX: {one_line(str(error))}."
        ) from error
    if custom_operators(model):
        return
    try:
        open_session(path)
    except NoKernelError:
        return
    except ORT_ERRORS as error:
        raise TransformError(
            f"the model made is refused by ONNX Runtime: {one_line(str(error))}."
        ) from error
