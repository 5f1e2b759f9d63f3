"""``trimton compare``: which variant is better, with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.connection_options import ConnectionOptions
from trimton.plugin.cli.feed_options import FeedOptions
from trimton.plugin.cli.load_options import LevelOptions
from trimton.plugin.cli.option_groups import grouped
from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.running_options import RunningOptions
from trimton.plugin.cli.stopping_options import StoppingOptions


@grouped
def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="The baseline and one or more variants, all of one kind: .onnx files, model "
            "folders, or with --url names of models on a server.",
        ),
    ],
    connection: ConnectionOptions,
    feed: FeedOptions,
    load: LevelOptions,
    stopping: StoppingOptions,
    running: RunningOptions,
    aa: Annotated[
        bool,
        typer.Option(
            "--aa", help="Compare A with itself: what noise alone looks like on this machine."
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The output that holds the scores of the classes."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Load a baseline and variants in interleaved rounds until every difference is judged.

    With --data the outputs are compared too, and with labels in it the accuracy.

    Example: trimton compare model.onnx model_int8.onnx --data evaluation.npz --concurrency 1,4
    """
    from trimton.plugin.cli.compare_run import CompareRun

    compared = models * 2 if aa and len(models) == 1 else models
    CompareRun(compared, aa, connection, feed, load, stopping, running, output, json).run()
