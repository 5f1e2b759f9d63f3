"""``trimton perf``: load one model and say how fast it answers."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.connection_options import PerfConnectionOptions
from trimton.plugin.cli.feed_options import FeedOptions
from trimton.plugin.cli.load_options import LOAD_PANEL, LoadOptions
from trimton.plugin.cli.measure_options import FileOptions, MeasureOptions
from trimton.plugin.cli.option_groups import grouped
from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.running_options import RunningOptions

OWN_ENGINE = "trimton"
ANALYZER_ENGINE = "perf_analyzer"


@grouped
def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file (run in this process), a model folder of a Triton repository "
            "(served by a local Triton), or with --url the name of a model on a server.",
        ),
    ],
    connection: PerfConnectionOptions,
    feed: FeedOptions,
    load: LoadOptions,
    measure: MeasureOptions,
    files: FileOptions,
    running: RunningOptions,
    engine: Annotated[
        str,
        typer.Option(
            metavar=f"{OWN_ENGINE}|{ANALYZER_ENGINE}",
            help="Who sends: this program, or NVIDIA's perf_analyzer where it is found "
            "($TRIMTON_PERF_ANALYZER, PATH), its figures in our tables.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = OWN_ENGINE,
    json: JsonOption = False,
) -> None:
    """Load a model and say how fast it answers, with 95 % intervals.

    A closed loop of requests in flight (--concurrency), or an open loop by schedule (a rate, a
    ramp, a trace), whose latency counts from the instant that a request was due. --peak finds the
    highest rate within a limit. Flags that perf_analyzer has mean what they mean there.

    Example: trimton perf model_repository/fashion_resnet --concurrency-range 1:4:1
    """
    from trimton.plugin.cli.perf_run import PerfRun

    PerfRun(model, connection, feed, load, measure, files, running, engine, json).run()
