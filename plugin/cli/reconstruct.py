"""``trimton reconstruct``: tune the rounding and scales of a quantised model by gradients."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


class UnitKind(StrEnum):
    """What is tuned together."""

    BLOCK = "block"
    LAYER = "layer"


def command(
    original: Annotated[
        Path,
        typer.Argument(metavar="FLOAT", help="The model that was quantised (.onnx), fused or not."),
    ],
    quantised: Annotated[
        Path, typer.Argument(metavar="QUANTISED", help="What trimton quantize made of it (.onnx).")
    ],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the result; may be QUANTISED.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples, without labels: an .npz with one array for each input, or "
            "PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ],
    unit: Annotated[UnitKind, typer.Option(help="What is tuned together.")] = UnitKind.BLOCK,
    steps: Annotated[int, typer.Option(min=1, help="Steps for each unit.")] = 400,
    batch: Annotated[int, typer.Option(min=1, help="Samples in one step.")] = 32,
    learn_steps: Annotated[
        bool,
        typer.Option(help="Move the scales of weights and activations, and zero points, too."),
    ] = True,
    held_out: Annotated[
        float, typer.Option(help="The share of the samples that judges and is not tuned on.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Seeds everything random.")] = 0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that compute. [default: all cores]", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tune the rounding of weights and the scales of QUANTISED, so that it answers as FLOAT does.

    Block by block: which way each weight is rounded (AdaRound), step sizes and biases are learnt
    until the block, on what the quantised network feeds it, gives what the float one gives. The
    graph and its kernels stay. A block is changed only where its error on held-out samples falls.
    For weights in few bits; int8 seldom needs it.

    Example: trimton reconstruct model.onnx int8.onnx tuned.onnx --data calibration.npz
    """
    from rich.progress import TimeRemainingColumn

    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
    from trimton.transforms.distill.runtime import require_torch
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model

    require_torch()
    settings = ReconstructSettings(
        unit=unit.value,
        steps=steps,
        batch=batch,
        learn_steps=learn_steps,
        held_out=held_out,
        seed=seed,
        threads=threads,
    )
    models = (load_model(original), load_model(quantised))
    samples = load_samples(data, input_specs(models[0]))
    # Importing torch takes seconds: only when all that was given is known to be right.
    from trimton.transforms.distill.reconstruct.reconstructing import reconstruct

    with progress(TimeRemainingColumn()) as shown:
        task = shown.add_task("reconstructing", total=None)
        try:
            made, report = reconstruct(
                *models,
                samples.inputs,
                settings,
                lambda done, units: shown.update(task, completed=done, total=units),
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{quantised}: {error}") from error
    finish(made, report, result, json)
