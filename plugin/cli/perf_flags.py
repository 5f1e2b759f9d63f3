"""The flags of ``perf`` as the command line shows them; their meaning is in perf_options."""

from __future__ import annotations

from typing import Annotated

import typer

ROUNDS = 5
WINDOW_S = 2.0
# What perf_analyzer's rule uses where an option is not given.
RULE_WINDOW_MS = 5000
RULE_SPREAD_PCT = 10.0
RULE_TRIALS = 10
TOKEN_VARIABLE = "TRIMTON_TOKEN"
OWN_ENGINE = "trimton"
ANALYZER_ENGINE = "perf_analyzer"

_LOAD = "Load"
_MEASURE = "Measurement"
_WIRE = "Connection to a server"
_FILES = "Files"

EngineOption = Annotated[
    str,
    typer.Option(
        metavar=f"{OWN_ENGINE}|{ANALYZER_ENGINE}",
        help="Who sends: this program, or NVIDIA's perf_analyzer where it is found "
        "($TRIMTON_PERF_ANALYZER, PATH), its figures in our tables.",
        rich_help_panel=_LOAD,
    ),
]
ProtocolOption = Annotated[
    str,
    typer.Option("--protocol", "-i", help="http or grpc.", rich_help_panel=_WIRE),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME:VALUE",
        help="A header of every request (repeatable). A bearer token is taken from the "
        f"environment variable {TOKEN_VARIABLE}.",
        rich_help_panel=_WIRE,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls",
        help="Connect with TLS; the system's authorities are trusted.",
        rich_help_panel=_WIRE,
    ),
]
TlsCaOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.pem", help="Trust these authorities instead.", rich_help_panel=_WIRE
    ),
]
TlsCertOption = Annotated[
    str | None,
    typer.Option(metavar="FILE.pem", help="The client's certificate.", rich_help_panel=_WIRE),
]
TlsKeyOption = Annotated[
    str | None, typer.Option(metavar="FILE.pem", help="Its key.", rich_help_panel=_WIRE)
]
InsecureOption = Annotated[
    bool,
    typer.Option("--tls-insecure", help="Trust whatever answers.", rich_help_panel=_WIRE),
]
CompressOption = Annotated[
    bool, typer.Option("--compress", help="Send request bodies with gzip.", rich_help_panel=_WIRE)
]
SharedMemoryOption = Annotated[
    str,
    typer.Option(
        help="none, or system: tensors stay in this machine's memory.", rich_help_panel=_WIRE
    ),
]
StreamingOption = Annotated[
    bool,
    typer.Option(
        "--streaming",
        help="Streaming inference over gRPC, for decoupled models: a request ends with its last "
        "response.",
        rich_help_panel=_LOAD,
    ),
]
SequenceOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Send sequences of N requests, for stateful models; each request in flight belongs "
        "to a sequence of its own.",
        rich_help_panel=_LOAD,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that share the load. Without it one, and more where that one turns out "
        "to be the limit.",
        rich_help_panel=_LOAD,
    ),
]
InputDataOption = Annotated[
    str | None,
    typer.Option(
        metavar="random|zero|PATH",
        help="What is sent: random values (the default), zeros, or perf_analyzer's input data (a "
        "JSON file, or a folder with one raw file for each input).",
    ),
]
RateOption = Annotated[
    str | None,
    typer.Option(
        "--request-rate",
        metavar="R,R,...",
        help="Requests per second by schedule, one level each; latency counts from the schedule.",
        rich_help_panel=_LOAD,
    ),
]
RateRangeOption = Annotated[
    str | None,
    typer.Option(
        "--request-rate-range",
        metavar="START:END:STEP",
        help="Rates as a range, END included; END 0 with --latency-threshold: until it breaks.",
        rich_help_panel=_LOAD,
    ),
]
DistributionOption = Annotated[
    str,
    typer.Option(help="Arrivals at a rate: constant or poisson.", rich_help_panel=_LOAD),
]
RampOption = Annotated[
    str | None,
    typer.Option(
        metavar="START:END:SECONDS", help="A rate that rises linearly.", rich_help_panel=_LOAD
    ),
]
ReplayOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Replay a trace: one arrival on each line, in seconds.",
        rich_help_panel=_LOAD,
    ),
]
IntervalsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Replay gaps between requests: one on each line, in microseconds.",
        rich_help_panel=_LOAD,
    ),
]
PeakOption = Annotated[
    bool,
    typer.Option(
        "--peak",
        help="Search the highest Poisson rate that keeps --latency-threshold (at --percentile, "
        "default 99) and --max-error-rate.",
        rich_help_panel=_LOAD,
    ),
]
ErrorRateOption = Annotated[
    float | None,
    typer.Option(
        help="Percentage of requests that may fail in --peak (default 0).", rich_help_panel=_LOAD
    ),
]
PrecisionOption = Annotated[
    float,
    typer.Option(
        help="Percentage to which --peak tells the highest rate that holds from the next that does "
        "not.",
        rich_help_panel=_LOAD,
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="End a range at the first level whose latency is over this.",
        rich_help_panel=_LOAD,
    ),
]
ConnectionsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="Connections that a rate may open; a request that finds none free waits, and the "
        "wait is latency.",
        rich_help_panel=_LOAD,
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
