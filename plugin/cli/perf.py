"""``trimton perf``: load one model and say how fast it answers."""

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
)
from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.perf_flags import (
    CompressOption,
    ConnectionsOption,
    CountOption,
    CsvOption,
    EngineOption,
    ErrorRateOption,
    ExportOption,
    IntervalOption,
    IntervalsOption,
    PeakOption,
    PercentileOption,
    PerfWarmupOption,
    PerfWindowOption,
    PrecisionOption,
    RampOption,
    ReplayOption,
    RoundsOption,
    SaveTraceOption,
    SequenceOption,
    SharedMemoryOption,
    SpreadOption,
    StreamingOption,
    ThresholdOption,
    TrialsOption,
    WorkersOption,
)


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file (run in this process), a model folder of a Triton repository "
            "(served by a local Triton), or with --url the name of a model on a server.",
        ),
    ],
    url: UrlOption = None,
    metrics_url: MetricsUrlOption = None,
    protocol: ProtocolOption = "http",
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
    ramp: RampOption = None,
    replay: ReplayOption = None,
    request_intervals: IntervalsOption = None,
    peak: PeakOption = False,
    latency_threshold: ThresholdOption = None,
    max_error_rate: ErrorRateOption = None,
    peak_precision: PrecisionOption = 3.0,
    max_connections: ConnectionsOption = 256,
    streaming: StreamingOption = False,
    sequence_length: SequenceOption = None,
    workers: WorkersOption = None,
    rounds: RoundsOption = None,
    window: PerfWindowOption = None,
    request_count: CountOption = None,
    warmup: PerfWarmupOption = "0.5",
    measurement_interval: IntervalOption = None,
    stability_percentage: SpreadOption = None,
    max_trials: TrialsOption = None,
    percentile: PercentileOption = None,
    header: HeaderOption = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_insecure: InsecureOption = False,
    compress: CompressOption = False,
    shared_memory: SharedMemoryOption = "none",
    latency_report_file: CsvOption = None,
    profile_export_file: ExportOption = None,
    save_trace: SaveTraceOption = None,
    engine: EngineOption = "trimton",
    threads: ThreadsOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Load a model and say how fast it answers, with 95 % intervals.

    A closed loop of requests in flight (--concurrency), or an open loop by schedule (a rate, a
    ramp, a trace), whose latency counts from the instant that a request was due. --peak finds the
    highest rate within a limit. Flags that perf_analyzer has mean what they mean there.

    Example: trimton perf model_repository/fashion_resnet --concurrency-range 1:4:1
    """
    from trimton.plugin.cli.feeding_options import feeding_of
    from trimton.plugin.cli.perf_options import LoadOptions, MeasureOptions
    from trimton.plugin.cli.perf_run import Outputs, PerfRun
    from trimton.plugin.cli.wire_options import wire_of

    PerfRun(
        model=model,
        url=url,
        metrics_url=metrics_url,
        wire=wire_of(
            protocol=protocol,
            headers=header,
            tls=tls,
            tls_files={"ca_file": tls_ca, "certificate_file": tls_cert, "key_file": tls_key},
            insecure=tls_insecure,
            compress=compress,
            shared_memory=shared_memory,
            streaming=streaming,
            sequence_length=sequence_length,
            workers=workers,
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
        load=LoadOptions(
            concurrency=concurrency,
            concurrency_range=concurrency_range,
            request_rate=request_rate,
            request_rate_range=request_rate_range,
            distribution=request_distribution,
            ramp=ramp,
            replay=replay,
            request_intervals=request_intervals,
            peak=peak,
            latency_threshold_ms=latency_threshold,
            max_error_pct=max_error_rate,
            peak_precision_pct=peak_precision,
            max_connections=max_connections,
        ),
        measure=MeasureOptions(
            rounds=rounds,
            window_s=window,
            warmup=warmup,
            interval_ms=measurement_interval,
            spread_pct=stability_percentage,
            trials_max=max_trials,
            percentile=percentile,
            request_count=request_count,
            seed=seed,
        ),
        outputs=Outputs(latency_report_file, profile_export_file, save_trace, json),
        threads=threads,
        engine=engine,
    ).run()
