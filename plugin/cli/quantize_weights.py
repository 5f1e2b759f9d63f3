"""``trimton quantize-weights``: store the matrices of one ONNX file in blocks of 4 or 8 bits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    DataOption,
    ExcludeOption,
    ResultArgument,
    SourceArgument,
)


class ComputeType(StrEnum):
    """What the kernels multiply in."""

    INT8 = "int8"
    FLOAT32 = "float32"


def command(
    source: SourceArgument,
    result: ResultArgument,
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
    restore: Annotated[
        bool,
        typer.Option(
            "--restore",
            help="Store weights of convolutions and recurrent layers in 8 bits, too; they are "
            "float32 again once the model is loaded, so only the file is smaller.",
        ),
    ] = False,
    exclude: ExcludeOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Store large matrices and tables as integers of 4 or 8 bits; activations stay in float.

    Matrix products become MatMulNBits, look-ups in tables GatherBlockQuantized, operators of ONNX
    Runtime. Convolutions and recurrent layers have no such kernels: see --restore.

    Example: trimton quantize-weights model.onnx small.onnx --bits 4 --block 32
    """
    from trimton.plugin.cli.transform import run
    from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

    settings = WeightOnlySettings(
        bits=bits,
        block=block,
        symmetric=symmetric,
        compute=compute.value,
        tables=tables,
        restore=restore,
        exclude=tuple(exclude or ()),
    )
    run(
        source,
        result,
        lambda model, inputs: quantize_weights(model, settings, inputs),
        data=data,
        doing="storing weights in blocks",
        json=json,
    )
