"""Raising the operator set where the QDQ form needs it."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.load import one_line
from trimton.transforms.report import Step

OPSET_MIN = 13  # the first with per-channel QuantizeLinear
_OPSET_TO = 17


def raise_opset(model: ir.Model) -> tuple[ir.Model, tuple[Step, ...]]:
    """``model`` itself if its operator set is recent enough, else a converted copy.

    Raises UnsupportedModelError where ONNX's converter cannot convert it.
    """
    have = model.opset_imports.get("", OPSET_MIN)
    if have >= OPSET_MIN:
        return model, ()
    try:
        converted = version_converter.convert_version(ir.serde.serialize_model(model), _OPSET_TO)
        onnx.checker.check_model(converted)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise UnsupportedModelError(
            f"per-channel scales need operator set {OPSET_MIN}, and the model, of {have}, "
            f"cannot be converted: {one_line(str(error))}."
        ) from error
    step = Step("opset", f"operator set raised from {have} to {_OPSET_TO} for per-channel scales")
    return ir.serde.deserialize_model(converted), (step,)
