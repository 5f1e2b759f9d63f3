"""``trimton prune``: remove channels, neurons, heads and hidden units from one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import UnsupportedModelError
from trimton.plugin.cli.output import JsonOption, progress


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The float model (.onnx).")],
    result: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the pruned model; may be IN.")
    ],
    ratio: Annotated[
        float,
        typer.Option(
            metavar="R", help="The share of the removable channels that goes, between 0 and 1."
        ),
    ],
    importance: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What says which channels matter: l1, l2 or geometric-median of the weights, "
            "batchnorm-scale, activation (needs --data), or random as a control.",
        ),
    ] = "l2",
    allocation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="uniform: the same share of every group; global: the least important channels of "
            "the whole model.",
        ),
    ] = "uniform",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="Keep the output channels of this node (repeatable; * and ? match).",
        ),
    ] = None,
    multiple: Annotated[
        int,
        typer.Option(
            min=1,
            help="Kept channels are a multiple of this, the block of the kernels: 8 with AVX2, 16 "
            "with AVX-512, 1 for any count.",
        ),
    ] = 8,
    min_kept: Annotated[
        int, typer.Option(min=1, help="How many channels of a group stay at least.")
    ] = 1,
    fold_constants: Annotated[
        bool,
        typer.Option(help="Add what removed channels gave on average to the next bias."),
    ] = True,
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
    seed: Annotated[int, typer.Option(min=0, help="For --importance random.")] = 0,
    json: JsonOption = False,
) -> None:
    """Remove the least important channels physically: less to compute with the same kernels.

    Outputs change; the interface does not. The cut itself is proven: it equals the original with
    the removed channels ignored. `trimton inspect --prunable` shows what can be removed.

    Example: trimton prune model.onnx model_half.onnx --ratio 0.5 --data calibration.npz
    """
    from trimton.plugin.cli.transform import finish
    from trimton.plugin.samples import load_samples
    from trimton.transforms.graph.inputs import input_specs
    from trimton.transforms.graph.load import load_model
    from trimton.transforms.prune import PruneSettings, prune

    settings = PruneSettings(
        ratio=ratio,
        importance=importance,
        allocation=allocation,
        exclude=tuple(exclude or ()),
        multiple=multiple,
        min_kept=min_kept,
        fold_constants=fold_constants,
        seed=seed,
    )
    model = load_model(source)
    samples = None if data is None else load_samples(data, input_specs(model))
    with progress() as shown:
        shown.add_task("finding ties, ranking and cutting", total=None)
        try:
            pruned, report = prune(model, settings, None if samples is None else samples.inputs)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    finish(pruned, report, result, json)
