"""``trimton quantize-dynamic``: int8 products and LSTMs without calibration samples."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    ExcludeOption,
    ResultArgument,
    SourceArgument,
)


def command(
    source: SourceArgument,
    result: ResultArgument,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Kernels to quantise for: amx, avx512_vnni, avx_vnni, arm_dotprod, avx512, avx2, "
            "or auto, which takes those of this machine.",
        ),
    ] = "auto",
    per_channel: Annotated[
        bool, typer.Option(help="One weight scale for each output channel.")
    ] = True,
    tables: Annotated[bool, typer.Option(help="Store tables of embeddings in 8 bits.")] = True,
    exclude: ExcludeOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples to compare the outputs on, instead of random inputs: an .npz with one "
            "array for each input, or PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compute matrix products and LSTMs in 8 bits, with ranges taken at each run.

    Nothing has to be calibrated. Fit for transformers and recurrent networks; convolutions gain
    only by trimton quantize.

    Example: trimton quantize-dynamic model.onnx int8.onnx
    """
    from trimton.perf.hardware import describe
    from trimton.plugin.cli.transform import run
    from trimton.plugin.steps.targets import resolve_target
    from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic

    settings = DynamicSettings(
        target=resolve_target(target, describe().instruction_sets),
        per_channel=per_channel,
        tables=tables,
        exclude=tuple(exclude or ()),
    )
    run(
        source,
        result,
        lambda model, inputs: quantize_dynamic(model, settings, inputs),
        data=data,
        doing="quantising",
        json=json,
    )
