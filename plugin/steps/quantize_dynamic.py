"""The step ``quantize_dynamic``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimton.plugin.steps.step import Step, TransformContext
from trimton.plugin.steps.targets import resolve_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed


class QuantizeDynamicStep(Step):
    """int8 products and LSTMs, ranges taken at each run; see `trimton quantize-dynamic`."""

    step: Literal["quantize_dynamic"] = "quantize_dynamic"
    target: Literal[
        "auto", "amx", "avx512_vnni", "avx_vnni", "arm_dotprod", "avx512", "avx2", "vnni"
    ] = Field("auto", description="Kernels to quantise for; auto takes those of this machine.")
    per_channel: bool = Field(True, description="One weight scale for each output channel.")
    tables: bool = Field(True, description="Store tables of embeddings in 8 bits.")
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that stay in float; * and ? match."
    )

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic

        settings = DynamicSettings(
            target=resolve_target(self.target, context.instruction_sets),
            per_channel=self.per_channel,
            tables=self.tables,
            exclude=tuple(self.exclude),
        )
        return quantize_dynamic(model, settings, context.calibration_inputs)
