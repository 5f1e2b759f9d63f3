"""The recipe: one YAML file that says what to compress, how to measure it, and what must hold.

Its keys, types and defaults stand here; trimton.plugin.recipe_file reads it. Relative paths in
a recipe are relative to the recipe's own folder. ``recipe.schema.json`` beside this module is
its JSON schema, for editors.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trimton.plugin.policy import Policy
from trimton.plugin.settings import BASELINE, Name, Settings
from trimton.plugin.steps import TransformStep


class ModelSettings(Settings):
    """Which model of which repository is the baseline."""

    repository: str = Field(description="Folder of the Triton model repository.")
    name: str = Field(description="Name of the model in it.")
    version: int | None = Field(None, ge=1, description="Version number; the latest if absent.")


class DataSettings(Settings):
    """Where samples come from: an .npz, PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION.

    In a list the first source that is there is used; a function says that its data is not there
    by raising FileNotFoundError.
    """

    calibration: str | list[str] | None = Field(
        None, description="Samples that transforms may look at; labels in it are not used."
    )
    training: str | list[str] | None = Field(
        None,
        description="Samples that distil steps train on, the more the better; those of "
        "calibration if absent.",
    )
    evaluation: str | list[str] = Field(description="Held-out samples; with labels for accuracy.")
    evaluation_samples_max: int | None = Field(
        None, ge=1, description="Use at most so many evaluation samples, the first ones."
    )


class VariantSettings(Settings):
    """One compressed variant: transforms of the baseline, applied in order."""

    description: str = Field("", description="One line for the report.")
    steps: list[TransformStep] = Field(min_length=1)


class LoadSettings(Settings):
    """The load test: interleaved rounds of closed loops."""

    concurrency: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [1, 4], min_length=1, description="Requests kept in flight; one level each."
    )
    batch: int = Field(1, ge=1, description="Samples in one request.")
    rounds: int = Field(8, ge=2, description="Windows for each variant and level.")
    window_s: float = Field(1.5, ge=0.1, le=600, description="Length of one window.")
    warmup_s: float = Field(0.3, ge=0, le=600, description="Load before each window, not counted.")
    memory_servers: int = Field(
        3, ge=1, le=20, description="Fresh servers that memory is read on, for each variant."
    )
    requests: int = Field(64, ge=1, description="Distinct samples that requests are made from.")


class Recipe(Settings):
    """A whole recipe."""

    version: Literal[1] = Field(description="Version of this format.")
    seed: int = Field(1, ge=0, description="Seeds everything random in the run.")
    model: ModelSettings
    data: DataSettings
    variants: dict[Name, VariantSettings] = Field(min_length=1)
    load: LoadSettings = Field(default_factory=lambda: LoadSettings.model_validate({}))
    policy: Policy

    @model_validator(mode="after")
    def _names_agree(self) -> Recipe:
        if BASELINE in self.variants:
            raise ValueError(f"variants: {BASELINE!r} is the original's name; choose another")
        if self.policy.candidate not in self.variants:
            have = ", ".join(self.variants)
            raise ValueError(
                f"policy.candidate: {self.policy.candidate!r} is no variant (variants: {have})"
            )
        needs_data = [
            name
            for name, variant in self.variants.items()
            if any(step.needs_calibration for step in variant.steps)
        ]
        needs_training = [
            name
            for name, variant in self.variants.items()
            if any(step.needs_training for step in variant.steps)
        ]
        if needs_training and self.data.training is None and self.data.calibration is None:
            raise ValueError(
                f"data.training: is missing, but variant {needs_training[0]!r} needs it"
            )
        if needs_data and self.data.calibration is None:
            raise ValueError(
                f"data.calibration: is missing, but variant {needs_data[0]!r} needs it"
            )
        for metric, limit in self.policy.limits.items():
            unknown = set(limit.concurrency or ()) - set(self.load.concurrency)
            if unknown:
                raise ValueError(
                    f"policy.limits.{metric}: concurrency {min(unknown)} is not in load.concurrency"
                )
        return self


def recipe_schema() -> str:
    """The JSON schema of a recipe in its long form, as text of ``recipe.schema.json``."""
    return json.dumps(Recipe.model_json_schema(), indent=2) + "\n"
