"""``trimton fuse``: lossless fusions of one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption, progress


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the fused model; may be IN.")
    ],
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
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.fuse import fuse
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model

    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task("fusing and comparing", total=None)
        fused, report = fuse(
            model, probes=None if samples is None else samples.inputs, tolerance=tolerance
        )
    finish(fused, report, result, json)
