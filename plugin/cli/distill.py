"""``trimton distill``: train a smaller model on what a larger one answers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from trimton.transforms.distill.augment import Augmentation
    from trimton.transforms.distill.trainer import TrainingProgress

# Beside OUT, while a training is not finished.
WORK_SUFFIX = ".distill"


def command(
    teacher: Annotated[
        Path, typer.Argument(metavar="TEACHER", help="The model to learn from (.onnx).")
    ],
    student: Annotated[
        Path,
        typer.Argument(
            metavar="STUDENT", help="The model to train (.onnx), with the teacher's outputs."
        ),
    ],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write it when trained; may be STUDENT.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples to train on: an .npz with one array for each input, or "
            "PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ],
    labels: Annotated[
        bool, typer.Option("--labels", help="Learn from the labels in D, too.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Samples in one step.")] = 128,
    optimiser: Annotated[str, typer.Option(metavar="NAME", help="adamw or sgd.")] = "adamw",
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="The highest, between warm-up and decay. [default: 0.001, or 0.05 for sgd]",
            show_default=False,
        ),
    ] = None,
    weight_decay: Annotated[
        float, typer.Option(help="How much kernels and matrices are shrunk.")
    ] = 0.01,
    warmup: Annotated[
        float, typer.Option(help="The share of all steps that the learning rate rises in.")
    ] = 0.05,
    temperature: Annotated[float, typer.Option(help="Softens the teacher's classes.")] = 2.0,
    label_weight: Annotated[
        float, typer.Option(help="With --labels: their share of the loss.")
    ] = 0.1,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTPUT=KIND",
            help="What an output holds, where its graph does not tell (repeatable): logits, "
            "probabilities, chances, direction, values or robust-values.",
        ),
    ] = None,
    feature_weight: Annotated[
        float,
        typer.Option(help="Weight of values inside the models that are matched; 0 matches none."),
    ] = 0.0,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THEIRS=OURS",
            help="With --feature-weight: match this value of STUDENT to that of TEACHER "
            "(repeatable). [default: ends of blocks with the same name or shape]",
            show_default=False,
        ),
    ] = None,
    averaging: Annotated[
        float, typer.Option(help="Decay of the running mean of the weights that is kept.")
    ] = 0.998,
    batch_norm: Annotated[
        str,
        typer.Option(metavar="NAME", help="Statistics of BatchNormalizations: train or frozen."),
    ] = "train",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is trained in: float32 or bfloat16, which is faster on CPUs that have it.",
        ),
    ] = "float32",
    held_out: Annotated[
        float, typer.Option(help="The share of the samples that judges; at most 5,000.")
    ] = 0.1,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop after N epochs that bring nothing on held-out samples.",
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help="Changes samples: PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION, called with a "
            "batch (arrays by input name) and a numpy Generator, gives such a batch.",
        ),
    ] = None,
    mixing: Annotated[
        float,
        typer.Option(metavar="A", help="Mix samples by shares from Beta(A, A) (mixup); 0: not."),
    ] = 0.0,
    views: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Augment or mix all samples N times and store the teacher's answers; 0: anew in "
            "every epoch.",
        ),
    ] = 0,
    group_sparsity: Annotated[
        float,
        typer.Option(
            metavar="W",
            help="Make sets of channels small that `trimton prune` then removes, by W times the "
            "mean norm of their group (0.3 is much; 0: not). The last weights are then written.",
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seeds everything random.")] = 0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that compute. [default: all cores]", show_default=False),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the teacher's answers and the state of the training are kept. [default: "
            "OUT.distill, removed at the end]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train STUDENT to answer as TEACHER does; samples need no labels.

    A student is a smaller form of its teacher: from `trimton prune`, `prune --blocks` or
    `factorise`, or any ONNX model with the same outputs. Leave BatchNormalizations in both (do not
    fuse before), they help training; fuse after. The best weights on held-out samples are written,
    never worse ones than STUDENT has. A quantised STUDENT is trained through its rounding and keeps
    its graph and scales. After a kill, the same command goes on where it stopped.

    Example: trimton distill model.onnx pruned.onnx distilled.onnx --data training.npz
    """
    from rich.progress import TimeRemainingColumn

    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import import_function, load_samples
    from trimton.transforms.distill.runtime import require_torch
    from trimton.transforms.distill.settings import DistillSettings
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model

    require_torch()
    settings = DistillSettings(
        epochs=epochs,
        batch=batch,
        optimiser=optimiser,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        temperature=temperature,
        label_weight=label_weight,
        losses=_pairs("--loss", loss),
        features=_pairs("--features", features) or None,
        feature_weight=feature_weight,
        averaging=averaging,
        batch_norm=batch_norm,
        precision=precision,
        held_out=held_out,
        patience=patience,
        mixing=mixing,
        views=views,
        group_sparsity=group_sparsity,
        seed=seed,
        threads=threads,
    )
    models = (load_model(teacher), load_model(student))
    samples = load_samples(data, input_specs(models[0]))
    if labels and samples.labels is None:
        raise InputError(f"{data}: has no labels; add an integer array 'labels', or go without.")
    augmentation = None if augment is None else cast("Augmentation", import_function(augment))
    folder = work or result.with_name(result.name + WORK_SUFFIX)
    # Importing torch takes seconds: only when all that was given is known to be right.
    from trimton.transforms.distill.distilling import Listeners, distill

    with progress(TimeRemainingColumn()) as shown:
        screen = _Shown(shown)
        try:
            trained, report = distill(
                *models,
                samples.inputs,
                settings,
                folder,
                labels=samples.labels if labels else None,
                augmentation=augmentation,
                listeners=Listeners(screen.answering, screen.training),
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{student}: {error}") from error
        except KeyboardInterrupt:
            typer.echo(f"trimton: its state is in {folder}; the same command goes on.", err=True)
            raise
    finish(trained, report, result, json)
    if work is None:
        shutil.rmtree(folder, ignore_errors=True)


class _Shown:
    """One line: the teacher's answers, then the training."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._answers = shown.add_task("asking the teacher", total=None)
        self._steps = shown.add_task("training", total=None, visible=False)

    def answering(self, done: int, count: int) -> None:
        self._shown.update(self._answers, completed=done, total=count, visible=done < count)

    def training(self, now: TrainingProgress) -> None:
        self._shown.update(self._answers, visible=False)
        self._shown.update(
            self._steps,
            description=f"epoch {now.epoch} of {now.epochs}, held-out loss {now.best_held_out:.4g}",
            completed=now.done,
            total=now.steps,
            visible=True,
        )


def _pairs(option: str, texts: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    parts = [text.rpartition("=") for text in texts or ()]
    for left, sign, right in parts:
        if not (left and sign and right):
            raise InputError(f"{option} {left}{sign}{right}: must be two names with = between.")
    return tuple((left, right) for left, _, right in parts)
