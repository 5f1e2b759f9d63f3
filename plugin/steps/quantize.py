"""The step ``quantize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimton.plugin.steps.step import Step, TransformContext
from trimton.plugin.steps.targets import resolve_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed


class QuantizeStep(Step):
    """Static int8 quantisation (QDQ); see `trimton quantize`."""

    step: Literal["quantize"] = "quantize"
    calibration_method: Literal[
        "auto", "minmax", "moving_average", "percentile", "mse", "entropy"
    ] = Field(
        "auto",
        description="How activation ranges are chosen from the calibration samples; auto takes "
        "the method that leaves the outputs closest.",
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="For calibration_method percentile."
    )
    stride: int = Field(
        17, ge=1, description="Count every so-manieth value of large tensors; 1 counts all, slowly."
    )
    per_channel: bool = Field(True, description="One weight scale for each output channel.")
    target: Literal[
        "auto",
        "amx",
        "avx512_vnni",
        "avx_vnni",
        "arm_dotprod",
        "avx512",
        "avx2",
        "tensorrt",
        "cuda",
        "vnni",
    ] = Field(
        "auto",
        description="Kernels to quantise for; auto takes those of this machine, vnni means "
        "avx512_vnni.",
    )
    equalise: bool = Field(
        False,
        description="Move scales of channels between layers first; exact in float. Helps some "
        "models and harms others.",
    )
    smooth: bool = Field(
        True, description="Move outliers of activations into weights first; exact in float."
    )
    compensate: bool = Field(
        True,
        description="Round weights of matrix products so that they make up for each other's "
        "errors on the calibration samples.",
    )
    correct_bias: bool = Field(
        True, description="Take the mean error that rounded weights make out of the biases."
    )
    refine: bool = Field(
        False,
        description="Round weights so that they make up for each other's errors, and correct "
        "biases, layer by layer on the calibration samples.",
    )
    min_agreement: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Leave the most harmful layers in float until this share of the calibration "
        "samples keeps its label.",
    )
    min_sqnr_db: float | None = Field(
        None, description="The same, by the outputs' ratio of signal to noise in decibels."
    )
    max_float_macs: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Leave no more than this share of the multiply-accumulates in float for it.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Names of nodes that stay in float; * matches any text."
    )

    @property
    def needs_calibration(self) -> bool:
        """Ranges are those of samples."""
        return True

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.quantize import QuantizeSettings, quantize

        options = self.model_dump(exclude={"step", "target", "exclude"})
        settings = QuantizeSettings(
            **options,
            target=resolve_target(self.target, context.instruction_sets),
            exclude=tuple(self.exclude),
        )
        return quantize(model, context.required_inputs, settings)
