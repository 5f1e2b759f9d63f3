"""``trimton quantize-weights``: store the matrices of one ONNX file in blocks of 4 or 8 bits."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


class ComputeType(StrEnum):
    """What the kernels multiply in."""

    INT8 = "int8"
    FLOAT32 = "float32"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The float model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the smaller model; may be IN.")
    ],
    bits: Annotated[int, typer.Option(metavar="BITS", help="Bits of one weight: 4 or 8.")] = 4,
    block: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="How many neighbours share a scale: 16, 32, 64, 128 or 256. Small blocks are "
            "closer to the float weights, large ones smaller.",
        ),
    ] = 32,
    symmetric: Annotated[
        bool,
        typer.Option(
            help="Without zero points, which --no-symmetric gives each block: closer to the float "
            "weights, and a little larger."
        ),
    ] = True,
    compute: Annotated[
        ComputeType,
        typer.Option(
            help="int8: kernels may round each block of what they read to 8 bits, which is "
            "fastest on a CPU; float32: they must not."
        ),
    ] = ComputeType.INT8,
    tables: Annotated[
        bool, typer.Option(help="Store tables of embeddings in the same way.")
    ] = True,
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
            help="Calibration samples, to round weights so that they make up for each other's "
            "errors: an .npz with one array for each input, or PACKAGE.MODULE:FUNCTION, or "
            "FILE.py:FUNCTION.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Store large matrices and tables as integers of 4 or 8 bits; activations stay in float.

    Matrix products become MatMulNBits, look-ups in tables GatherBlockQuantized, operators of ONNX
    Runtime. Convolutions and recurrent layers have no such kernels and stay as they are.

    Example: trimton quantize-weights model.onnx small.onnx --bits 4 --block 32
    """
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model
    from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

    settings = WeightOnlySettings(
        bits=bits,
        block=block,
        symmetric=symmetric,
        compute=compute.value,
        tables=tables,
        exclude=tuple(exclude or ()),
    )
    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task("storing weights in blocks", total=None)
        try:
            made, report = quantize_weights(
                model, settings, None if samples is None else samples.inputs
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    finish(made, report, result, json)
