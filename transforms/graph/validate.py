"""Whether a model is valid: ONNX's checker, then a session of ONNX Runtime."""

from __future__ import annotations

import contextlib
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


def validate_file(path: Path, model: ir.Model) -> None:
    """Check the file ``path`` just written from ``model``, its shapes included.

    Where ONNX cannot follow the shapes (it is stricter than what is served every day), ONNX
    Runtime's own inference decides. A model with operators that ONNX Runtime does not bring
    along, or has no CPU kernel for, is only checked, not loaded. Raises TransformError with the
    checker's or the runtime's reason.
    """
    try:
        with contextlib.suppress(shape_inference.InferenceError):
            checker.check_model(str(path), full_check=True)
    except checker.ValidationError as error:
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
