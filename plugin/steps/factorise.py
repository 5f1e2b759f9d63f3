"""The step ``factorise``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from trimton.core.errors import InputError
from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed
    from trimton.transforms.factorise import FactoriseSettings


class FactoriseStep(Step):
    """Layers at low rank, fitted on the calibration samples; see `trimton factorise`."""

    step: Literal["factorise"] = "factorise"
    ratio: float | None = Field(
        None, description="Share of each layer's multiply-accumulates that goes."
    )
    energy: float | None = Field(
        None, description="Instead of ratio: share of each layer's variance that stays."
    )
    target_macs: float | None = Field(
        None, description="Instead of ratio: share of the multiply-accumulates that may stay."
    )
    target_speedup: float | None = Field(
        None, description="Instead of ratio: how many times as fast, measured on this machine."
    )
    measure: bool = Field(
        True, description="Factorise a layer only where that saves time on this machine."
    )
    multiple: int = Field(
        8, ge=1, description="Ranks are a multiple of this, the block of the kernels."
    )
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that are left alone; * and ? match."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> FactoriseStep:
        self.settings()
        return self

    def settings(self) -> FactoriseSettings:
        """The transform's settings; ValueError where the options do not fit together."""
        from trimton.transforms.factorise import FactoriseSettings

        options = self.model_dump(exclude={"step", "exclude"})
        try:
            return FactoriseSettings(**options, exclude=tuple(self.exclude))
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @property
    def needs_calibration(self) -> bool:
        """It chooses by what layers respond to samples."""
        return True

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.factorise import factorise

        return factorise(model, context.required_inputs, self.settings())
