"""``trimton cast``: half precision for one ONNX file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    ExcludeOption,
    ResultArgument,
    SourceArgument,
)


class Format(StrEnum):
    """The two formats of 16 bits."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Target(StrEnum):
    """What computes the model."""

    CPU = "cpu"
    GPU = "gpu"


def command(
    source: SourceArgument,
    result: ResultArgument,
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
    exclude: ExcludeOption = None,
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
    from trimton.plugin.cli.transform import run
    from trimton.transforms.precision import CastSettings, cast

    settings = CastSettings(
        to=to.value, target=target.value, keep_io=keep_io, exclude=tuple(exclude or ())
    )
    run(
        source,
        result,
        lambda model, inputs: cast(model, settings, inputs),
        data=data,
        doing=f"casting to {to.value}",
        json=json,
    )
