"""``trimton compare``: which variant is better, with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from trimton.plugin.cli.load_options import (
    BatchOption,
    ConcurrencyOption,
    ConcurrencyRangeOption,
    DataOption,
    SeedOption,
    ShapeOption,
    ThreadsOption,
    UrlOption,
    WarmupOption,
    WindowOption,
)
from trimton.plugin.cli.output import JsonOption


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
    data: DataOption = None,
    shape: ShapeOption = None,
    batch: BatchOption = None,
    concurrency: ConcurrencyOption = None,
    concurrency_range: ConcurrencyRangeOption = None,
    rounds: Annotated[
        int, typer.Option(help="Windows for each variant at each level, interleaved.")
    ] = 8,
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
    """Load a baseline and variants in interleaved rounds and judge every difference.

    With --data the outputs are compared too, and with labels in it the accuracy.

    Example: trimton compare model.onnx model_int8.onnx --data evaluation.npz --concurrency 1,4
    """
    from trimton.core.errors import InputError
    from trimton.perf.load.feeds import resolve_batch
    from trimton.perf.quality import measure_quality
    from trimton.perf.stats.compare import compare_variants
    from trimton.perf.stats.levels import summarise_levels
    from trimton.plugin.cli.level_output import (
        comparison_table,
        level_json,
        level_table,
        notes_of,
        quality_table,
        server_json,
    )
    from trimton.plugin.cli.load_options import plan_from_options
    from trimton.plugin.cli.output import console, print_json
    from trimton.plugin.subjects import answers_of, check_same_inputs, open_subjects

    if len(models) < 2:
        raise InputError("compare needs a baseline and at least one variant.")
    if not 0 <= margin < 100:
        raise InputError(f"--margin is a percentage from 0 to below 100, not {margin:g}.")
    if output is not None and data is None:
        raise InputError("--output is for --data: without samples no outputs are compared.")
    plan = plan_from_options(
        concurrency=concurrency,
        concurrency_range=concurrency_range,
        shapes=shape,
        data=data,
        batch=batch,
        rounds=rounds,
        window_s=window,
        warmup_s=warmup,
        seed=seed,
    )
    with open_subjects(models, url=url, intra_op_threads=threads) as subjects:
        check_same_inputs(subjects)
        baseline, *variants = subjects
        samples = plan.samples(baseline)
        size = resolve_batch(baseline.inputs, batch)
        quality = []
        if samples is not None:
            expected = answers_of(baseline, samples.inputs, size)
            for subject in subjects:
                answers = answers_of(subject, samples.inputs, size)
                quality.append(
                    measure_quality(subject.name, expected, answers, samples.labels, classes=output)
                )
        windows = plan.measure(subjects, samples, size)
    levels = summarise_levels(windows, seed=seed)
    metrics = {
        variant.name: compare_variants(
            windows, baseline=baseline.name, variant=variant.name, seed=seed, margin=margin / 100
        )
        for variant in variants
    }
    if json:
        print_json(
            {
                "baseline": baseline.name,
                "variants": [variant.name for variant in variants],
                "server": server_json(baseline.server),
                "margin_pct": margin,
                "metrics": [
                    {"variant_name": name, **metric.model_dump(mode="json")}
                    for name, found in metrics.items()
                    for metric in found
                ],
                "quality": [summary.model_dump(mode="json") for summary in quality],
                "levels": [{"variant_name": lv.variant, **level_json(lv)} for lv in levels],
            }
        )
        return
    screen = console()
    for subject in subjects:
        screen.print(f"[bold]{subject.name}[/] (latencies in ms)")
        screen.print(level_table([level for level in levels if level.variant == subject.name]))
    for name, found in metrics.items():
        screen.print(f"\n[bold]{name}[/] against {baseline.name}")
        screen.print(comparison_table(found))
    if quality:
        screen.print()
        screen.print(quality_table(quality))
    for note in notes_of(levels):
        screen.print(note, soft_wrap=True)
