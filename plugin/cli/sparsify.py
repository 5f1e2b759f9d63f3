"""``trimton sparsify``: set weights of one ONNX file to zero."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


class Method(StrEnum):
    """What chooses the weights that go."""

    MAGNITUDE = "magnitude"
    WANDA = "wanda"
    COMPENSATED = "compensated"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The float model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the sparse model; may be IN.")
    ],
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Leave this node dense (repeatable; * and ? match)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Calibration samples: an .npz with one array for each input, or "
            "PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Set weights to zero, so that the model is smaller wherever it is stored compressed.

    ONNX Runtime's CPU kernels do not use zeros: the model gets no faster there. Sparse tensor
    cores (NVIDIA, from Ampere on, through TensorRT) compute 2:4 layers with half the work.
    Outputs change; the interface does not.

    Example: trimton sparsify model.onnx sparse.onnx --pattern 2:4 --data calibration.npz
    """
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model
    from trimton.transforms.sparsify import SparsifySettings, sparsify

    settings = SparsifySettings(
        pattern=pattern, ratio=ratio, method=method.value, exclude=tuple(exclude or ())
    )
    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task("choosing weights", total=None)
        try:
            sparse, report = sparsify(model, settings, None if samples is None else samples.inputs)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    finish(sparse, report, result, json)
