"""``trimton perf``: load one model and say how fast it answers."""

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
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file (run in this process), a model folder of a Triton repository "
            "(served by a local Triton), or with --url the name of a model on a server.",
        ),
    ],
    url: UrlOption = None,
    data: DataOption = None,
    shape: ShapeOption = None,
    batch: BatchOption = None,
    concurrency: ConcurrencyOption = None,
    concurrency_range: ConcurrencyRangeOption = None,
    rounds: Annotated[int, typer.Option(help="Windows at each level.")] = 5,
    window: WindowOption = 2.0,
    warmup: WarmupOption = 0.5,
    threads: ThreadsOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Load a model in a closed loop: throughput and latency with 95 % intervals.

    Example: trimton perf model_repository/fashion_resnet --concurrency-range 1:4:1
    """
    from trimton.perf.load.feeds import resolve_batch
    from trimton.perf.stats.levels import summarise_levels
    from trimton.plugin.cli.level_output import level_json, level_table, notes_of, server_json
    from trimton.plugin.cli.load_options import plan_from_options
    from trimton.plugin.cli.output import console, print_json
    from trimton.plugin.subjects import open_subjects

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
    with open_subjects([model], url=url, intra_op_threads=threads) as (subject,):
        samples = plan.samples(subject)
        size = resolve_batch(subject.inputs, batch)
        windows = plan.measure([subject], samples, size)
        server = subject.server
    levels = summarise_levels(windows, seed=seed)
    if json:
        print_json(
            {
                "model": subject.name,
                "server": server_json(server),
                "batch": size,
                "rounds": rounds,
                "window_s": window,
                "levels": [level_json(level) for level in levels],
            }
        )
        return
    where = f"{server.name} {server.version}" if server else "ONNX Runtime in this process"
    console().print(f"{subject.name} on {where}, {rounds} windows of {window:g} s at each level")
    console().print(level_table(levels))
    for note in notes_of(levels):
        console().print(note, soft_wrap=True)
