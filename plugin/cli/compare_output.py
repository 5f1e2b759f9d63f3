"""What ``compare`` prints, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimton.perf.report.level_notes import notes_of
from trimton.perf.results import LevelSummary, QualitySummary
from trimton.perf.stats.quantiles import ERROR_RATE
from trimton.perf.stats.sequential import Comparison, Questions
from trimton.perf.targets.endpoint import ServerMetadata
from trimton.plugin.cli.level_output import (
    comparison_table,
    level_json,
    level_table,
    quality_table,
    server_json,
)
from trimton.plugin.cli.output import console


def comparison_json(
    questions: Questions,
    compared: Comparison,
    quality: Sequence[QualitySummary],
    levels: Sequence[LevelSummary],
    server: ServerMetadata | None,
    *,
    aa: bool,
) -> dict[str, Any]:
    """The object of ``--json``."""
    is_fixed = compared.stopped == "fixed"
    return {
        "baseline": questions.baseline,
        "variants": list(questions.variants),
        "server": server_json(server),
        "margin_pct": 100 * questions.margin,
        "aa": aa,
        "asked": [] if is_fixed else list(questions.metrics),
        "error_rate": ERROR_RATE,
        "stopped": compared.stopped,
        "rounds": compared.rounds,
        "seconds": compared.seconds,
        "metrics": [
            {"variant_name": name, **metric.model_dump(mode="json")}
            for name, found in compared.metrics.items()
            for metric in found
        ],
        "quality": [summary.model_dump(mode="json") for summary in quality],
        "levels": [{"variant_name": level.variant, **level_json(level)} for level in levels],
    }


def print_comparison(
    questions: Questions,
    compared: Comparison,
    quality: Sequence[QualitySummary],
    levels: Sequence[LevelSummary],
) -> None:
    """Tables, why it ended, and notes, on standard output."""
    screen = console()
    for name in (questions.baseline, *questions.variants):
        screen.print(f"[bold]{name}[/] (latencies in ms)")
        screen.print(level_table([level for level in levels if level.variant == name]))
    for name, found in compared.metrics.items():
        screen.print(f"\n[bold]{name}[/] against {questions.baseline}")
        screen.print(comparison_table(found))
    if quality:
        screen.print()
        screen.print(quality_table(quality))
    screen.print(_ending(questions, compared), soft_wrap=True)
    for note in notes_of(levels):
        screen.print(note, soft_wrap=True)


def _ending(questions: Questions, compared: Comparison) -> str:
    """Why it stopped, and what the intervals promise."""
    measured = f"{compared.rounds} rounds in {compared.seconds:.0f} s"
    if compared.stopped == "fixed":
        return f"{measured}; each interval holds the truth with 95 %."
    asked = " and ".join(questions.metrics)
    answered = f"{questions.answered(compared.metrics)} of {questions.count} answers"
    reason = {
        "clear": f"the answers for {asked} are clear",
        "rounds": f"{answered} for {asked} are clear; more need a higher --max-rounds",
        "budget": f"{answered} for {asked} are clear; more need a larger --budget",
    }[compared.stopped]
    return f"{measured}: {reason}. The chance that any of these is wrong is 5 % at most."
