"""The step ``cast``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed


class CastStep(Step):
    """Half precision; inputs and outputs stay float32; see `trimton cast`."""

    step: Literal["cast"] = "cast"
    to: Literal["float16", "bfloat16"] = Field("float16", description="The format to cast to.")
    target: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="cpu: weights are stored in half precision, and computed with in it where "
        "this machine has kernels; gpu: all that ONNX allows computes in it.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that compute in float32; * and ? match."
    )

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.precision import CastSettings, cast

        settings = CastSettings(to=self.to, target=self.target, exclude=tuple(self.exclude))
        return cast(model, settings, context.calibration_inputs)
