"""``trimton sparsify``: set weights of one ONNX file to zero."""

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


class Method(StrEnum):
    """What chooses the weights that go."""

    MAGNITUDE = "magnitude"
    WANDA = "wanda"
    COMPENSATED = "compensated"


def command(
    source: SourceArgument,
    result: ResultArgument,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="N:M",
            help="Keep N of every M neighbouring input channels, such as 2:4, which sparse tensor "
            "cores compute with.",
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Instead of --pattern: the share of each layer's weights that goes, between 0 "
            "and 1.",
        ),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="magnitude: the smallest weights go; wanda: those of the least weight times norm "
            "of what it multiplies; compensated: those that cost least, while the others are "
            "changed to make up for them. The last two need --data."
        ),
    ] = Method.COMPENSATED,
    exclude: ExcludeOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Set weights to zero, so that the model is smaller wherever it is stored compressed.

    ONNX Runtime's CPU kernels do not use zeros: the model gets no faster there. Sparse tensor
    cores (NVIDIA, from Ampere on, through TensorRT) compute 2:4 layers with half the work.
    Outputs change; the interface does not.

    Example: trimton sparsify model.onnx sparse.onnx --pattern 2:4 --data calibration.npz
    """
    from trimton.plugin.cli.transform import run
    from trimton.transforms.sparsify import SparsifySettings, sparsify

    settings = SparsifySettings(
        pattern=pattern, ratio=ratio, method=method.value, exclude=tuple(exclude or ())
    )
    run(
        source,
        result,
        lambda model, inputs: sparsify(model, settings, inputs),
        data=data,
        doing="choosing weights",
        json=json,
    )
