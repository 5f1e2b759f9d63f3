"""``trimton compare``: which variant is better, with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.load_options import (
    BatchOption,
    ConcurrencyOption,
    ConcurrencyRangeOption,
    DataOption,
    DistributionOption,
    HeaderOption,
    InputDataOption,
    InsecureOption,
    MetricsUrlOption,
    ProtocolOption,
    RateOption,
    RateRangeOption,
    SeedOption,
    ShapeOption,
    ThreadsOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
    UrlOption,
    ValidateAtolOption,
    ValidateOption,
    ValidateRtolOption,
    WarmupOption,
    WindowOption,
)
from trimton.plugin.cli.output import JsonOption

# One for the rate and one for the tail: in a closed loop the others follow these two. By schedule
# the rate is given.
ASKED = ("throughput_rps", "latency_p95_ms")
ASKED_BY_SCHEDULE = ("latency_mean_ms", "latency_p95_ms")
ROUNDS_MAX = 30


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="The baseline and one or more variants, all of one kind: .onnx files, model "
            "folders, or with --url names of models on a server.",
        ),
    ],
    url: UrlOption = None,
    metrics_url: MetricsUrlOption = None,
    protocol: ProtocolOption = "http",
    header: HeaderOption = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_insecure: InsecureOption = False,
    data: DataOption = None,
    input_data: InputDataOption = None,
    validate: ValidateOption = None,
    validate_rtol: ValidateRtolOption = None,
    validate_atol: ValidateAtolOption = None,
    shape: ShapeOption = None,
    batch: BatchOption = None,
    concurrency: ConcurrencyOption = None,
    concurrency_range: ConcurrencyRangeOption = None,
    request_rate: RateOption = None,
    request_rate_range: RateRangeOption = None,
    request_distribution: DistributionOption = "constant",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Go on until this metric's answer is clear (repeatable; default "
            f"{' and '.join(ASKED)}; at a rate {' and '.join(ASKED_BY_SCHEDULE)}).",
        ),
    ] = None,
    max_rounds: Annotated[
        int | None,
        typer.Option(
            help="The most windows for each variant at each level, interleaved "
            f"(default {ROUNDS_MAX})."
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The most time for the load.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="Exactly so many windows, instead of stopping when the answer is clear."),
    ] = None,
    aa: Annotated[
        bool,
        typer.Option(
            "--aa", help="Compare A with itself: what noise alone looks like on this machine."
        ),
    ] = False,
    window: WindowOption = 2.0,
    warmup: WarmupOption = 0.5,
    margin: Annotated[
        float, typer.Option(help="Differences up to this percentage count as equivalent.")
    ] = 3.0,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The output that holds the scores of the classes."),
    ] = None,
    threads: ThreadsOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Load a baseline and variants in interleaved rounds until every difference is judged.

    With --data the outputs are compared too, and with labels in it the accuracy.

    Example: trimton compare model.onnx model_int8.onnx --data evaluation.npz --concurrency 1,4
    """
    from trimton.plugin.cli.compare_run import CompareRun, Stopping
    from trimton.plugin.cli.feeding_options import feeding_of
    from trimton.plugin.cli.load_levels import fixed_levels
    from trimton.plugin.cli.wire_options import wire_of

    CompareRun(
        models=models * 2 if aa and len(models) == 1 else models,
        aa=aa,
        url=url,
        metrics_url=metrics_url,
        wire=wire_of(
            protocol=protocol,
            headers=header,
            tls=tls,
            tls_files={"ca_file": tls_ca, "certificate_file": tls_cert, "key_file": tls_key},
            insecure=tls_insecure,
            workers=1,  # of all alike: one that changes it halfway would change the ratio
        ),
        feeding=feeding_of(
            data=data,
            input_data=input_data,
            shapes=shape,
            seed=seed,
            validate=validate,
            rtol=validate_rtol,
            atol=validate_atol,
        ),
        batch=batch,
        levels=fixed_levels(
            concurrency, concurrency_range, request_rate, request_rate_range, request_distribution
        ),
        stopping=Stopping(tuple(metric or ()), rounds, max_rounds, budget),
        window_s=window,
        warmup_s=warmup,
        margin_pct=margin,
        classes=output,
        threads=threads,
        seed=seed,
        json=json,
    ).run()
