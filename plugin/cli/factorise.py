"""``trimton factorise``: compute layers of one ONNX file at low rank, as two smaller ones."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    ExcludeOption,
    RequiredDataOption,
    ResultArgument,
    SourceArgument,
)


def command(
    source: SourceArgument,
    result: ResultArgument,
    data: RequiredDataOption,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="The share of each layer's multiply-accumulates that goes, between 0 and 1.",
        ),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            metavar="E",
            help="Instead of --ratio: the share of the variance of each layer's responses that "
            "stays, such as 0.99.",
        ),
    ] = None,
    target_macs: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Instead of --ratio: the share of the model's multiply-accumulates that may "
            "stay, at the least damage over all layers.",
        ),
    ] = None,
    target_speedup: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Instead of --ratio: how many times as fast as IN the result shall be, measured "
            "on this machine with one sample.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            help="Factorise a layer only where that saves time on this machine; else where it "
            "saves multiply-accumulates."
        ),
    ] = True,
    multiple: Annotated[
        int,
        typer.Option(
            min=1,
            help="Ranks are a multiple of this, the block of the kernels: 8 with AVX2, 16 with "
            "AVX-512, 1 for any rank.",
        ),
    ] = 8,
    exclude: ExcludeOption = None,
    json: JsonOption = False,
) -> None:
    """Compute layers at low rank: a Conv, Gemm or MatMul becomes two smaller ones.

    What is kept are the principal components of each layer's responses on the samples. Layer by
    layer, the two are fitted to what the original network had. Outputs change; the interface does
    not. Fuse first, quantise last.

    Example: trimton factorise model.onnx smaller.onnx --target-macs 0.6 --data calibration.npz
    """
    from trimton.plugin.cli.transform import run_with_data
    from trimton.transforms.factorise import FactoriseSettings, factorise

    settings = FactoriseSettings(
        ratio=ratio,
        energy=energy,
        target_macs=target_macs,
        target_speedup=target_speedup,
        multiple=multiple,
        measure=measure,
        exclude=tuple(exclude or ()),
    )
    run_with_data(
        source,
        result,
        lambda model, inputs: factorise(model, inputs, settings),
        data=data,
        doing="finding components, choosing ranks and fitting",
        json=json,
    )
