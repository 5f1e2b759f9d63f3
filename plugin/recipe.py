"""The recipe: one YAML file that says what to compress, how to measure it, and what must hold.

Its keys, types and defaults stand here; trimton.plugin.recipe_file reads it. Relative paths in
a recipe are relative to the recipe's own folder. ``recipe.schema.json`` beside this module is
its JSON schema, for editors.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from trimton.core.errors import InputError
from trimton.plugin.policy import Policy
from trimton.plugin.settings import BASELINE as BASELINE
from trimton.plugin.settings import Name, Settings

if TYPE_CHECKING:
    from trimton.transforms.distill.settings import DistillSettings
    from trimton.transforms.factorise import FactoriseSettings
    from trimton.transforms.prune import PruneSettings
    from trimton.transforms.sparsify import SparsifySettings


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


class FuseStep(Settings):
    """Lossless fusion; see `trimton fuse`."""

    step: Literal["fuse"] = "fuse"


class QuantizeStep(Settings):
    """Static int8 quantisation (QDQ); see `trimton quantize`."""

    step: Literal["quantize"] = "quantize"
    calibration_method: Literal["minmax", "moving_average", "percentile", "mse", "entropy"] = Field(
        "minmax", description="How activation ranges are chosen from the calibration samples."
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="For calibration_method percentile."
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
        True, description="Move scales of channels between layers first; exact in float."
    )
    smooth: bool = Field(
        True, description="Move outliers of activations into weights first; exact in float."
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


class QuantizeWeightsStep(Settings):
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
    exclude: list[str] = Field(
        default_factory=list, description="Nodes that stay in float; * and ? match."
    )


class QuantizeDynamicStep(Settings):
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


class CastStep(Settings):
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


class PruneStep(Settings):
    """Structured pruning, with the calibration samples where given; see `trimton prune`."""

    step: Literal["prune"] = "prune"
    ratio: float | None = Field(None, description="Share of the removable channels that goes.")
    target_macs: float | None = Field(
        None, description="Instead of ratio: share of the multiply-accumulates that may stay."
    )
    target_speedup: float | None = Field(
        None, description="Instead of ratio: how many times as fast, measured on this machine."
    )
    blocks: int = Field(
        0, ge=0, description="Before that, or instead: how many whole blocks or layers go."
    )
    importance: Literal[
        "l1", "l2", "geometric-median", "batchnorm-scale", "activation", "reconstruction", "random"
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


class FactoriseStep(Settings):
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


class SparsifyStep(Settings):
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


class DistillStep(Settings):
    """Training with the original model as the teacher, on data.training; see `trimton distill`."""

    step: Literal["distill"] = "distill"
    epochs: int = Field(20, description="Passes over the samples.")
    batch: int = Field(128, description="Samples in one step.")
    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="What takes the steps.")
    learning_rate: float | None = Field(
        None, description="The highest one; 0.001 if absent, 0.05 for sgd."
    )
    weight_decay: float = Field(0.01, description="How much kernels and matrices are shrunk.")
    warmup: float = Field(0.05, description="Share of all steps that the learning rate rises in.")
    temperature: float = Field(2.0, description="Softens the teacher's classes.")
    labels: bool = Field(False, description="Learn from the labels of the samples, too.")
    label_weight: float = Field(0.1, description="With labels: their share of the loss.")
    losses: dict[str, str] = Field(
        default_factory=dict,
        description="By output what it holds, where its graph does not tell: logits, "
        "probabilities, chances, direction, values or robust-values.",
    )
    feature_weight: float = Field(
        0.0, description="Weight of values inside the models that are matched; 0 matches none."
    )
    features: dict[str, str] | None = Field(
        None,
        description="With feature_weight, by value of the original the value to match it with; "
        "ends of blocks with the same name or shape if absent.",
    )
    averaging: float = Field(
        0.998, description="Decay of the running mean of the weights that is kept."
    )
    batch_norm: Literal["train", "frozen"] = Field(
        "train", description="Statistics of BatchNormalizations."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="What is trained in; bfloat16 is faster on CPUs that have it."
    )
    held_out: float = Field(0.1, description="Share of the samples that judges; at most 5,000.")
    patience: int | None = Field(
        None, description="Stop after so many epochs that bring nothing on held-out samples."
    )
    augment: str | None = Field(
        None,
        description="Changes samples: PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION, called with a "
        "batch and a numpy Generator.",
    )
    mixing: float = Field(0.0, description="Mix samples by shares from Beta(A, A); 0: not.")
    views: int = Field(
        0,
        description="Augment or mix all samples so many times and store the answers to them; 0: "
        "anew in every epoch.",
    )
    threads: int | None = Field(None, description="Threads that compute; all cores if absent.")

    @model_validator(mode="after")
    def _fits_together(self) -> DistillStep:
        self.settings(seed=0)
        return self

    def settings(self, seed: int) -> DistillSettings:
        """The transform's settings; ValueError where an option has a wrong value."""
        from trimton.transforms.distill.settings import DistillSettings

        options = self.model_dump(exclude={"step", "labels", "losses", "features", "augment"})
        try:
            return DistillSettings(
                **options,
                losses=tuple(self.losses.items()),
                features=None if self.features is None else tuple(self.features.items()),
                seed=seed,
            )
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error


AnyStep = (
    FuseStep
    | PruneStep
    | FactoriseStep
    | SparsifyStep
    | DistillStep
    | QuantizeStep
    | QuantizeWeightsStep
    | QuantizeDynamicStep
    | CastStep
)
STEPS = tuple(kind.model_fields["step"].default for kind in get_args(AnyStep))
TransformStep = Annotated[AnyStep, Field(discriminator="step")]


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
            if any(_needs_data(step) for step in variant.steps)
        ]
        needs_training = [
            name
            for name, variant in self.variants.items()
            if any(isinstance(step, DistillStep) for step in variant.steps)
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


def _needs_data(step: AnyStep) -> bool:
    """Whether ``step`` cannot do without calibration samples."""
    if isinstance(step, SparsifyStep):
        return step.settings().needs_samples
    return isinstance(step, (FactoriseStep, QuantizeStep))


def recipe_schema() -> str:
    """The JSON schema of a recipe in its long form, as text of ``recipe.schema.json``."""
    return json.dumps(Recipe.model_json_schema(), indent=2) + "\n"
