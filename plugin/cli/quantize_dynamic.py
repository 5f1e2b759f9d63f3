"""``trimton quantize-dynamic``: int8 products and LSTMs without calibration samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The float model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the int8 model; may be IN.")
    ],
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Leave this node in float (repeatable; * and ? match)."),
    ] = None,
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
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.plugin.steps.targets import resolve_target
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model
    from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic

    settings = DynamicSettings(
        target=resolve_target(target, describe().instruction_sets),
        per_channel=per_channel,
        tables=tables,
        exclude=tuple(exclude or ()),
    )
    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task("quantising", total=None)
        try:
            made, report = quantize_dynamic(
                model, settings, None if samples is None else samples.inputs
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    finish(made, report, result, json)
