"""``trimton fuse``: lossless fusions of one ONNX file."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    ResultArgument,
    SourceArgument,
)


def command(
    source: SourceArgument,
    result: ResultArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples on which the outputs are compared, besides random inputs: an .npz with "
            "one array for each input, or PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="The largest difference of an output, relative to its maximum."),
    ] = 1e-4,
    json: JsonOption = False,
) -> None:
    """Fuse nodes without changing what the model computes, and prove it.

    OUT is written even where nothing could be fused. If an output moves by more than the
    tolerance, nothing is written and the exit code is 1.

    Example: trimton fuse model.onnx model_fused.onnx --data samples.npz
    """
    from trimton.plugin.cli.transform import run
    from trimton.transforms.fuse import fuse

    run(
        source,
        result,
        lambda model, inputs: fuse(model, probes=inputs, tolerance=tolerance),
        data=data,
        doing="fusing and comparing",
        json=json,
    )
