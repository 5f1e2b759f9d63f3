"""The options that ``perf`` and ``compare`` share, as the command line shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.perf.load.tolerance import Tolerance

TOKEN_VARIABLE = "TRIMTON_TOKEN"
LOAD_PANEL = "Load"
WIRE_PANEL = "Connection to a server"

UrlOption = Annotated[
    str | None,
    typer.Option("--url", "-u", metavar="HOST:PORT", help="A running server's HTTP address."),
]
MetricsUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Prometheus metrics of the server at --url (Triton's port is 8002).",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="D",
        help="Samples to send: an .npz with one array for each input, or PACKAGE.MODULE:FUNCTION. "
        "Without it random values are sent.",
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME:DIMS",
        help="Dimensions after the first of an input with free ones, e.g. tokens:128 or "
        "image:3,224,224 (repeatable).",
    ),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", "-b", help="Samples in each request (default 1).")
]
ConcurrencyOption = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="Requests in flight, one level each (default 1)."),
]
ConcurrencyRangeOption = Annotated[
    str | None,
    typer.Option(metavar="START:END:STEP", help="The levels as a range, END included."),
]
RateOption = Annotated[
    str | None,
    typer.Option(
        "--request-rate",
        metavar="R,R,...",
        help="Requests per second by schedule, one level each; latency counts from the schedule.",
        rich_help_panel=LOAD_PANEL,
    ),
]
RateRangeOption = Annotated[
    str | None,
    typer.Option(
        "--request-rate-range",
        metavar="START:END:STEP",
        help="Rates as a range, END included; END 0 with --latency-threshold: until it breaks.",
        rich_help_panel=LOAD_PANEL,
    ),
]
DistributionOption = Annotated[
    str,
    typer.Option(help="Arrivals at a rate: constant or poisson.", rich_help_panel=LOAD_PANEL),
]
ProtocolOption = Annotated[
    str,
    typer.Option("--protocol", "-i", help="http or grpc.", rich_help_panel=WIRE_PANEL),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME:VALUE",
        help="A header of every request (repeatable). A bearer token is taken from the "
        f"environment variable {TOKEN_VARIABLE}.",
        rich_help_panel=WIRE_PANEL,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls",
        help="Connect with TLS; the system's authorities are trusted.",
        rich_help_panel=WIRE_PANEL,
    ),
]
TlsCaOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.pem", help="Trust these authorities instead.", rich_help_panel=WIRE_PANEL
    ),
]
TlsCertOption = Annotated[
    str | None,
    typer.Option(metavar="FILE.pem", help="The client's certificate.", rich_help_panel=WIRE_PANEL),
]
TlsKeyOption = Annotated[
    str | None, typer.Option(metavar="FILE.pem", help="Its key.", rich_help_panel=WIRE_PANEL)
]
InsecureOption = Annotated[
    bool,
    typer.Option("--tls-insecure", help="Trust whatever answers.", rich_help_panel=WIRE_PANEL),
]
InputDataOption = Annotated[
    str | None,
    typer.Option(
        metavar="random|zero|PATH",
        help="What is sent: random values (the default), zeros, or perf_analyzer's input data (a "
        "JSON file, or a folder with one raw file for each input).",
    ),
]
ValidateOption = Annotated[
    bool | None,
    typer.Option(
        "--validate/--no-validate",
        help="Compare every answer with the validation_data of the JSON file; a wrong output "
        "counts as an error. By default where the file has any.",
    ),
]
ValidateRtolOption = Annotated[
    float | None,
    typer.Option(
        "--validate-rtol",
        help=f"Tolerance for floating-point outputs, relative (default {Tolerance.rtol:g}).",
    ),
]
ValidateAtolOption = Annotated[
    float | None,
    typer.Option("--validate-atol", help=f"The same, absolute (default {Tolerance.atol:g})."),
]
WindowOption = Annotated[float, typer.Option(help="Seconds that one window measures.")]
WarmupOption = Annotated[float, typer.Option(help="Seconds of load before each window.")]
ThreadsOption = Annotated[
    int,
    typer.Option(min=1, help="Threads inside one inference of an .onnx file in this process."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of random inputs, orders and intervals.")]
