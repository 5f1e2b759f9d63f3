"""The step ``distill``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, model_validator

from trimton.core.errors import InputError
from trimton.plugin.samples import import_function, resolve_source
from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed
    from trimton.transforms.distill.augment import Augmentation
    from trimton.transforms.distill.settings import DistillSettings


class DistillStep(Step):
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
    group_sparsity: float = Field(
        0.0,
        description="Make sets of channels small, for a prune step that follows: how many times "
        "the mean norm of a group is taken off each; 0: not. The last weights are then kept.",
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

    @property
    def needs_training(self) -> bool:
        """It trains."""
        return True

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.distill.runtime import require_torch

        require_torch()
        from trimton.transforms.distill.distilling import Listeners, distill

        samples = context.training or context.calibration
        assert samples is not None  # a recipe with this step is refused without it
        assert context.original is not None
        if self.labels and samples.labels is None:
            raise InputError(
                f"{samples.source}: has no labels; add an integer array 'labels', or go without."
            )
        augmentation = None
        if self.augment is not None:
            source = resolve_source(self.augment, context.recipe_folder)
            augmentation = cast("Augmentation", import_function(source))
        return distill(
            context.original,
            model,
            samples.inputs,
            self.settings(context.seed),
            context.work_folder,
            labels=samples.labels if self.labels else None,
            augmentation=augmentation,
            listeners=Listeners(
                answering=context.on_progress,
                training=lambda now: context.on_progress(now.done, now.steps),
            ),
        )
