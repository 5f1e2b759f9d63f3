"""The step ``sparsify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from trimton.core.errors import InputError
from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed
    from trimton.transforms.sparsify import SparsifySettings


class SparsifyStep(Step):
    """Weights set to zero; see `trimton sparsify`."""

    step: Literal["sparsify"] = "sparsify"
    pattern: str | None = Field(
        None, description='"N:M", in quotes: N of M neighbouring input channels stay.'
    )
    ratio: float | None = Field(
        None, description="Instead of pattern: share of each layer's weights that goes."
    )
    method: Literal["magnitude", "wanda", "compensated"] = Field(
        "compensated", description="What chooses the weights that go."
    )
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that stay dense; * and ? match."
    )

    @field_validator("pattern", mode="before")
    @classmethod
    def _is_quoted(cls, value: object) -> object:
        if isinstance(value, int):  # YAML 1.1 reads 2:4 as a number of base 60
            raise ValueError('must stand in quotes, such as "2:4"')
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> SparsifyStep:
        self.settings()
        return self

    def settings(self) -> SparsifySettings:
        """The transform's settings; ValueError where the options do not fit together."""
        from trimton.transforms.sparsify import SparsifySettings

        options = self.model_dump(exclude={"step", "exclude"})
        try:
            return SparsifySettings(**options, exclude=tuple(self.exclude))
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @property
    def needs_calibration(self) -> bool:
        """All methods but magnitude."""
        return self.settings().needs_samples

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.sparsify import sparsify

        return sparsify(model, self.settings(), context.calibration_inputs)
