"""``trimton cast``: half precision for one ONNX file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


class Format(StrEnum):
    """The two formats of 16 bits."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Target(StrEnum):
    """What computes the model."""

    CPU = "cpu"
    GPU = "gpu"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The float32 model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the smaller model; may be IN.")
    ],
    to: Annotated[Format, typer.Option(help="The format to cast to.")] = Format.FLOAT16,
    target: Annotated[
        Target,
        typer.Option(
            help="cpu: weights are stored in half precision, and computed with in it only where "
            "this machine has kernels for products in it; gpu: all that ONNX allows computes in it."
        ),
    ] = Target.CPU,
    keep_io: Annotated[
        bool, typer.Option(help="Keep float32 inputs and outputs; else they become half, too.")
    ] = True,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE", help="Compute this node in float32 (repeatable; * and ? match)."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples that tell how large values become, besides random inputs: an .npz with "
            "one array for each input, or PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Store a model in half precision, and compute in it where that is safe and gains something.

    What would leave the range of the format stays in float32 and is named. A CPU gains half the
    size, not speed; a GPU gains both.

    Example: trimton cast model.onnx half.onnx --to float16 --target gpu
    """
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model
    from trimton.transforms.precision import CastSettings, cast

    settings = CastSettings(
        to=to.value, target=target.value, keep_io=keep_io, exclude=tuple(exclude or ())
    )
    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task(f"casting to {to.value}", total=None)
        try:
            made, report = cast(model, settings, None if samples is None else samples.inputs)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    finish(made, report, result, json)
