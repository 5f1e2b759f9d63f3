"""The step ``reconstruct``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from trimton.core.errors import InputError
from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed
    from trimton.transforms.distill.reconstruct.settings import ReconstructSettings


class ReconstructStep(Step):
    """Tuning of the quantise step before it, on data.training; see `trimton reconstruct`."""

    step: Literal["reconstruct"] = "reconstruct"
    unit: Literal["block", "layer"] = Field("block", description="What is tuned together.")
    steps: int = Field(400, description="Steps for each unit.")
    batch: int = Field(32, description="Samples in one step.")
    learn_steps: bool = Field(
        True, description="Move the scales of weights and activations, and zero points, too."
    )
    held_out: float = Field(
        0.2, description="Share of the samples that judges and is not tuned on."
    )
    threads: int | None = Field(None, description="Threads that compute; all cores if absent.")

    @model_validator(mode="after")
    def _fits_together(self) -> ReconstructStep:
        self.settings(seed=0)
        return self

    def settings(self, seed: int) -> ReconstructSettings:
        """The transform's settings; ValueError where an option has a wrong value."""
        from trimton.transforms.distill.reconstruct.settings import ReconstructSettings

        try:
            return ReconstructSettings(**self.model_dump(exclude={"step"}), seed=seed)
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @property
    def needs_training(self) -> bool:
        """It learns from samples."""
        return True

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.distill.runtime import require_torch

        require_torch()
        from trimton.transforms.distill.reconstruct.reconstructing import reconstruct

        samples = context.training or context.calibration
        assert samples is not None  # a recipe with this step is refused without it
        if context.unquantised is None:
            raise InputError("no step before it quantises; put a quantize step there.")
        return reconstruct(
            context.unquantised,
            model,
            samples.inputs,
            self.settings(context.seed),
            context.on_progress,
        )
