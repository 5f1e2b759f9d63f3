"""The step ``prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from trimton.core.errors import InputError
from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed
    from trimton.transforms.prune import PruneSettings


class PruneStep(Step):
    """Structured pruning, with the calibration samples where given; see `trimton prune`."""

    step: Literal["prune"] = "prune"
    ratio: float | None = Field(None, description="Share of the removable channels that goes.")
    target_macs: float | None = Field(
        None, description="Instead of ratio: share of the multiply-accumulates that may stay."
    )
    target_speedup: float | None = Field(
        None, description="Instead of ratio: how many times as fast, measured on this machine."
    )
    speed_batch: int = Field(
        1, ge=1, description="Samples in the runs by which a speed is measured."
    )
    blocks: int = Field(
        0, ge=0, description="Before that, or instead: how many whole blocks or layers go."
    )
    importance: Literal[
        "l1",
        "l2",
        "geometric-median",
        "batchnorm-scale",
        "activation",
        "reconstruction",
        "taylor",
        "hessian",
        "random",
    ] = Field("l2", description="What says which channels matter.")
    allocation: Literal["uniform", "global", "cost"] = Field(
        "uniform",
        description="The same share of every group, the least important of the whole model, or "
        "what loses least for a target.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Nodes whose output channels stay; * and ? match."
    )
    multiple: int | None = Field(
        None,
        ge=1,
        description="Kept channels are a multiple of this. Default: the block of this CPU's "
        "kernels, 16 with AVX-512, else 8.",
    )
    min_kept: int = Field(1, ge=1, description="How many channels of a group stay at least.")
    refit: bool = Field(
        True, description="Refit the layers behind a cut on the calibration samples."
    )
    statistics: bool | None = Field(
        None,
        description="Estimate means and variances of BatchNormalizations anew on the calibration "
        "samples; by default where refit is false.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> PruneStep:
        self.settings()
        return self

    def settings(self) -> PruneSettings:
        """The transform's settings; ValueError where the options do not fit together."""
        from trimton.transforms.prune import PruneSettings

        options = self.model_dump(exclude={"step", "exclude"})
        if self.target_macs is not None or self.target_speedup is not None:
            options["allocation"] = "cost"
        try:
            return PruneSettings(**options, exclude=tuple(self.exclude))
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.prune import prune

        return prune(model, self.settings(), context.calibration_inputs)
