"""The flags of ``perf`` as the command line shows them; their meaning is in perf_options."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.load_options import LOAD_PANEL, WIRE_PANEL

ROUNDS = 5
WINDOW_S = 2.0
# What perf_analyzer's rule uses where an option is not given.
RULE_WINDOW_MS = 5000
RULE_SPREAD_PCT = 10.0
RULE_TRIALS = 10
OWN_ENGINE = "trimton"
ANALYZER_ENGINE = "perf_analyzer"

_MEASURE = "Measurement"
_FILES = "Files"

EngineOption = Annotated[
    str,
    typer.Option(
        metavar=f"{OWN_ENGINE}|{ANALYZER_ENGINE}",
        help="Who sends: this program, or NVIDIA's perf_analyzer where it is found "
        "($TRIMTON_PERF_ANALYZER, PATH), its figures in our tables.",
        rich_help_panel=LOAD_PANEL,
    ),
]
CompressOption = Annotated[
    bool,
    typer.Option("--compress", help="Send request bodies with gzip.", rich_help_panel=WIRE_PANEL),
]
SharedMemoryOption = Annotated[
    str,
    typer.Option(
        help="none, or system: tensors stay in this machine's memory.", rich_help_panel=WIRE_PANEL
    ),
]
StreamingOption = Annotated[
    bool,
    typer.Option(
        "--streaming",
        help="Streaming inference over gRPC, for decoupled models: a request ends with its last "
        "response.",
        rich_help_panel=LOAD_PANEL,
    ),
]
SequenceOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Send sequences of N requests, for stateful models; each request in flight belongs "
        "to a sequence of its own.",
        rich_help_panel=LOAD_PANEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that share the load. Without it one, and more where that one turns out "
        "to be the limit.",
        rich_help_panel=LOAD_PANEL,
    ),
]
RampOption = Annotated[
    str | None,
    typer.Option(
        metavar="START:END:SECONDS", help="A rate that rises linearly.", rich_help_panel=LOAD_PANEL
    ),
]
ReplayOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Replay a trace: one arrival on each line, in seconds.",
        rich_help_panel=LOAD_PANEL,
    ),
]
IntervalsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Replay gaps between requests: one on each line, in microseconds.",
        rich_help_panel=LOAD_PANEL,
    ),
]
PeakOption = Annotated[
    bool,
    typer.Option(
        "--peak",
        help="Search the highest Poisson rate that keeps --latency-threshold (at --percentile, "
        "default 99) and --max-error-rate.",
        rich_help_panel=LOAD_PANEL,
    ),
]
ErrorRateOption = Annotated[
    float | None,
    typer.Option(
        help="Percentage of requests that may fail in --peak (default 0).",
        rich_help_panel=LOAD_PANEL,
    ),
]
PrecisionOption = Annotated[
    float,
    typer.Option(
        help="Percentage to which --peak tells the highest rate that holds from the next that does "
        "not.",
        rich_help_panel=LOAD_PANEL,
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="End a range at the first level whose latency is over this.",
        rich_help_panel=LOAD_PANEL,
    ),
]
ConnectionsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="Connections that a rate may open; a request that finds none free waits, and the "
        "wait is latency. Over HTTP, Triton may lose answers where more than some 270 are due "
        "at once.",
        rich_help_panel=LOAD_PANEL,
    ),
]
CountOption = Annotated[
    int | None,
    typer.Option(
        "--request-count", help="Requests to send, instead of a time.", rich_help_panel=_MEASURE
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        help=f"Windows at each level (default {ROUNDS}; 1 for a ramp, a replay or a number of "
        "requests).",
        rich_help_panel=_MEASURE,
    ),
]
PerfWindowOption = Annotated[
    float | None,
    typer.Option(
        "--window", help=f"Seconds of one window (default {WINDOW_S:g}).", rich_help_panel=_MEASURE
    ),
]
PerfWarmupOption = Annotated[
    str,
    typer.Option(
        "--warmup",
        metavar="SECONDS|auto",
        help="Load before each window; auto finds when the latency becomes steady.",
        rich_help_panel=_MEASURE,
    ),
]
IntervalOption = Annotated[
    int | None,
    typer.Option(
        "--measurement-interval",
        "-p",
        metavar="MS",
        help="perf_analyzer's rule instead of rounds: windows of this length (default "
        f"{RULE_WINDOW_MS}) until three agree.",
        rich_help_panel=_MEASURE,
    ),
]
SpreadOption = Annotated[
    float | None,
    typer.Option(
        "--stability-percentage",
        "-s",
        help=f"The rule's tolerance (default {RULE_SPREAD_PCT:g}).",
        rich_help_panel=_MEASURE,
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option(
        "--max-trials",
        "-r",
        help=f"The rule's most windows (default {RULE_TRIALS}).",
        rich_help_panel=_MEASURE,
    ),
]
PercentileOption = Annotated[
    float | None,
    typer.Option(
        help="The latency that the rule and the threshold look at, instead of the mean.",
        rich_help_panel=_MEASURE,
    ),
]
CsvOption = Annotated[
    str | None,
    typer.Option(
        "--latency-report-file",
        "-f",
        metavar="FILE.csv",
        help="Write perf_analyzer's CSV, with columns of our own after its.",
        rich_help_panel=_FILES,
    ),
]
ExportOption = Annotated[
    str | None,
    typer.Option(
        "--profile-export-file",
        metavar="FILE.json",
        help="Write every request with its times, as perf_analyzer does.",
        rich_help_panel=_FILES,
    ),
]
SaveTraceOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write the arrivals of the first window, for --replay.",
        rich_help_panel=_FILES,
    ),
]
