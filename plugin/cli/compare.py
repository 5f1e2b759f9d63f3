"""``trimton compare``: which variant is better, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trimton.plugin.cli.load_options import (
    BatchOption,
    ConcurrencyOption,
    ConcurrencyRangeOption,
    DataOption,
    LoadPlan,
    MetricsUrlOption,
    SeedOption,
    ShapeOption,
    ThreadsOption,
    UrlOption,
    WarmupOption,
    WindowOption,
)
from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.perf_flags import (
    HeaderOption,
    InsecureOption,
    ProtocolOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimton.perf.results import LoadWindow, QualitySummary
    from trimton.perf.stats.sequential import Comparison, Questions
    from trimton.plugin.samples import Samples
    from trimton.plugin.subjects import Subject

# One for the rate and one for the tail: in a closed loop the others follow these two.
_ASKED = ("throughput_rps", "latency_p95_ms")
_ROUNDS_MAX = 30


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
    shape: ShapeOption = None,
    batch: BatchOption = None,
    concurrency: ConcurrencyOption = None,
    concurrency_range: ConcurrencyRangeOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Go on until this metric's answer is clear (repeatable; default "
            f"{' and '.join(_ASKED)}).",
        ),
    ] = None,
    max_rounds: Annotated[
        int | None,
        typer.Option(
            help="The most windows for each variant at each level, interleaved "
            f"(default {_ROUNDS_MAX})."
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
    from trimton.core.errors import InputError
    from trimton.perf.load.feeds import resolve_batch
    from trimton.perf.stats.levels import summarise_levels
    from trimton.perf.stats.metrics import METRICS
    from trimton.perf.stats.sequential import Questions
    from trimton.plugin.cli.compare_output import comparison_json, print_comparison
    from trimton.plugin.cli.load_options import check_metrics_url, plan_from_options
    from trimton.plugin.cli.output import print_json
    from trimton.plugin.cli.perf_options import wire_of
    from trimton.plugin.subjects import check_same_inputs, open_subjects

    if aa and len(models) != 1:
        raise InputError("--aa compares one model with itself; give that model alone.")
    if not aa and len(models) < 2:
        raise InputError("compare needs a baseline and at least one variant.")
    if not 0 <= margin < 100:
        raise InputError(f"--margin is a percentage from 0 to below 100, not {margin:g}.")
    if output is not None and data is None:
        raise InputError("--output is for --data: without samples no outputs are compared.")
    if rounds is not None and (max_rounds or budget or metric):
        raise InputError(
            "--rounds fixes how much is measured; leave out --max-rounds, --budget and --metric."
        )
    if max_rounds is not None and max_rounds < 1:
        raise InputError(f"--max-rounds must be at least 1, not {max_rounds}.")
    if budget is not None and not budget > 0:
        raise InputError(f"--budget must be more than 0 s, not {budget:g}.")
    if unknown := set(metric or ()) - METRICS.keys():
        raise InputError(f"--metric {min(unknown)} is none of {', '.join(METRICS)}.")
    plan = plan_from_options(
        concurrency=concurrency,
        concurrency_range=concurrency_range,
        shapes=shape,
        data=data,
        batch=batch,
        rounds=max_rounds or _ROUNDS_MAX if rounds is None else rounds,
        window_s=window,
        warmup_s=warmup,
        seed=seed,
    )
    check_metrics_url(metrics_url, url)
    if tls and url is None:
        raise InputError("--tls is for a server at --url; a local one has no TLS.")
    wire = wire_of(
        protocol=protocol,
        headers=header,
        tls=tls,
        tls_files={"ca_file": tls_ca, "certificate_file": tls_cert, "key_file": tls_key},
        insecure=tls_insecure,
        workers=1,  # of all variants alike: one that changes it halfway would change the ratio
    )
    with open_subjects(
        models * 2 if aa else models,
        url=url,
        intra_op_threads=threads,
        wire=wire,
        metrics_url=metrics_url,
    ) as subjects:
        check_same_inputs(subjects)
        if subjects[0].server is None and protocol.lower() != "http":
            raise InputError("--protocol is for models on a server; these run in this process.")
        baseline, *variants = subjects
        samples = plan.samples(baseline)
        size = resolve_batch(baseline.inputs, batch)
        quality = _quality(subjects, samples, size, output)
        questions = Questions(
            baseline=baseline.name,
            variants=[variant.name for variant in variants],
            metrics=tuple(dict.fromkeys(metric or _ASKED)),
            levels=len(plan.levels),
            margin=margin / 100,
        )
        compared = _measure(plan, subjects, samples, size, questions, rounds is not None, budget)
    levels = summarise_levels(compared.windows, seed=seed)
    if json:
        print_json(comparison_json(questions, compared, quality, levels, baseline.server, aa=aa))
    else:
        print_comparison(questions, compared, quality, levels)


def _quality(
    subjects: Sequence[Subject], samples: Samples | None, batch: int, output: str | None
) -> list[QualitySummary]:
    """How good and how close every subject is on ``samples``; nothing without samples."""
    from trimton.perf.quality import measure_quality
    from trimton.plugin.subjects import answers_of

    if samples is None:
        return []
    answers = [answers_of(subject, samples.inputs, batch) for subject in subjects]
    return [
        measure_quality(subject.name, answers[0], found, samples.labels, classes=output)
        for subject, found in zip(subjects, answers, strict=True)
    ]


def _measure(
    plan: LoadPlan,
    subjects: Sequence[Subject],
    samples: Samples | None,
    batch: int,
    questions: Questions,
    is_fixed: bool,
    budget_s: float | None,
) -> Comparison:
    """Load ``subjects`` side by side, with progress on a terminal."""
    from trimton.perf.load.rounds import measure_rounds
    from trimton.perf.stats.sequential import measure_rounds_fixed, measure_until_clear
    from trimton.plugin.cli.output import progress

    feeds = plan.feeds(subjects[0], samples, batch)
    for subject in subjects:  # a request that the model refuses is wrong input, not an error rate
        subject.infer(feeds[0])
    arms = [subject.arm(feeds, batch, in_flight=max(plan.levels)) for subject in subjects]
    with progress() as shown:
        task = shown.add_task("loading", total=len(arms) * len(plan.levels) * plan.rounds)

        def measure(rounds: int, done: tuple[LoadWindow, ...]) -> tuple[LoadWindow, ...]:
            return measure_rounds(
                arms,
                levels=plan.levels,
                rounds=rounds,
                window_s=plan.window_s,
                warmup_s=plan.warmup_s,
                seed=plan.seed,
                done=done,
                on_window=lambda window: shown.advance(task),
            )

        if is_fixed:
            return measure_rounds_fixed(measure, questions, rounds=plan.rounds, seed=plan.seed)
        return measure_until_clear(
            measure, questions, rounds_max=plan.rounds, budget_s=budget_s, seed=plan.seed
        )
