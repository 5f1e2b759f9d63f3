"""``trimton prune``: remove channels, neurons, heads and whole blocks from one ONNX file."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    DataOption,
    ResultArgument,
    SourceArgument,
)


def command(
    source: SourceArgument,
    result: ResultArgument,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="R", help="The share of the removable channels that goes, between 0 and 1."
        ),
    ] = None,
    target_macs: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Instead of --ratio: the share of the multiply-accumulates that may stay; needs "
            "--data.",
        ),
    ] = None,
    target_speedup: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Instead of --ratio: how many times as fast as IN the result shall be, measured "
            "on this machine; needs --data.",
        ),
    ] = None,
    speed_batch: Annotated[
        int, typer.Option(min=1, help="Samples in the runs by which that speed is measured.")
    ] = 1,
    blocks: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Before that, or instead: remove so many whole residual blocks or transformer "
            "layers, those whose absence does least for what it saves; needs --data.",
        ),
    ] = 0,
    importance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What says which channels matter: l1, l2 or geometric-median of the weights, "
            "batchnorm-scale, activation, reconstruction, taylor or hessian (these need --data, "
            "the last two torch), or random as a control. [default: l2, or reconstruction for a "
            "target]",
            show_default=False,
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="uniform: the same share of every group; global: the least important channels of "
            "the whole model; cost: those that lose least for the target. [default: uniform, or "
            "cost for a target]",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="Keep the output channels of this node (repeatable; * and ? match).",
        ),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Kept channels are a multiple of this, 1 for any count. [default: the block of "
            "this CPU's kernels, 16 with AVX-512, else 8]",
            show_default=False,
        ),
    ] = None,
    min_kept: Annotated[
        int, typer.Option(min=1, help="How many channels of a group stay at least.")
    ] = 1,
    fold_constants: Annotated[
        bool,
        typer.Option(help="Add what removed channels gave on average to the next bias."),
    ] = True,
    refit: Annotated[
        bool,
        typer.Option(
            help="With --data: give layers behind a cut the weights that come closest to IN."
        ),
    ] = True,
    statistics: Annotated[
        bool | None,
        typer.Option(
            "--statistics/--no-statistics",
            help="With --data: estimate means and variances of BatchNormalizations anew. "
            "[default: with --no-refit]",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="For --importance random, taylor and hessian.")
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Remove the least important channels physically: less to compute with the same kernels.

    Outputs change; the interface does not. The cut itself is proven: it equals the original with
    the removed channels ignored. With samples, the layers that read removed channels are refitted.
    --blocks removes whole residual blocks and transformer layers first, or instead.
    Fuse first, so that a BatchNormalization needs no repair of its own. `trimton inspect
    --prunable` shows what can be removed.

    Example: trimton prune model.onnx smaller.onnx --target-speedup 1.8 --data calibration.npz
    """
    from trimton.plugin.cli.transform import run
    from trimton.transforms.prune import PruneSettings, prune

    is_targeted = target_macs is not None or target_speedup is not None
    settings = PruneSettings(
        ratio=ratio,
        blocks=blocks,
        target_macs=target_macs,
        target_speedup=target_speedup,
        speed_batch=speed_batch,
        importance=importance or ("reconstruction" if is_targeted else "l2"),
        allocation=allocation or ("cost" if is_targeted else "uniform"),
        exclude=tuple(exclude or ()),
        multiple=multiple,
        min_kept=min_kept,
        fold_constants=fold_constants,
        refit=refit,
        statistics=statistics,
        seed=seed,
    )
    run(
        source,
        result,
        lambda model, inputs: prune(model, settings, inputs),
        data=data,
        doing="finding ties, ranking, cutting and refitting",
        json=json,
    )
