"""The step ``quantize_weights``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed


class QuantizeWeightsStep(Step):
    """Weights in blocks of 4 or 8 bits; see `trimton quantize-weights`."""

    step: Literal["quantize_weights"] = "quantize_weights"
    bits: Literal[4, 8] = Field(4, description="Bits of one weight.")
    block: Literal[16, 32, 64, 128, 256] = Field(
        32, description="How many neighbours share a scale."
    )
    symmetric: bool = Field(True, description="Without a zero point for each block.")
    compute: Literal["int8", "float32"] = Field(
        "int8", description="int8: kernels may round what they read to 8 bits; float32: must not."
    )
    tables: bool = Field(True, description="Store tables of embeddings in the same way.")
    restore: bool = Field(
        False,
        description="Store weights of convolutions and recurrent layers in 8 bits, too; they are "
        "float32 again once the model is loaded.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that stay in float; * and ? match."
    )

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

        options = self.model_dump(exclude={"step", "exclude"})
        settings = WeightOnlySettings(**options, exclude=tuple(self.exclude))
        return quantize_weights(model, settings, context.calibration_inputs)
