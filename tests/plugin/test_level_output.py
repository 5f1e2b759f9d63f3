"""What levels say about their own worth is told once, not once for each level."""

from __future__ import annotations

from windows import window

from trimton.perf.report.level_notes import notes_of
from trimton.perf.stats.levels import summarise_levels
from trimton.plugin.cli.level_output import level_json


def windows(variant: str, concurrency: int, throughputs: list[float], requests: int = 500):
    return [
        window(variant, number, throughput, requests=requests, concurrency=concurrency)
        for number, throughput in enumerate(throughputs)
    ]


def test_unstable_levels_of_a_variant_share_one_line_with_their_spreads():
    levels = summarise_levels(
        windows("a", 1, [100, 115, 100])
        + windows("a", 4, [300, 300, 300])
        + windows("a", 16, [100, 130, 100])
        + windows("b", 1, [100, 150, 100])
    )
    assert notes_of(levels) == [
        (
            "a has rounds that differ by more than 10%: at concurrency 1 (throughput by 15%), "
            "concurrency 16 (throughput by 30%)"
        ),
        "b has rounds that differ by more than 10%: at concurrency 1 (throughput by 50%)",
    ]
    # For machines each level says it for itself.
    assert level_json(levels[2])["notes"] == [
        "throughput differs by 30% between rounds (limit 10%)"
    ]


def test_what_several_levels_say_stands_in_one_line():
    levels = summarise_levels(windows("a", 1, [100.0]) + windows("a", 4, [100.0], requests=300))
    assert notes_of(levels) == [
        "a at concurrency 1, concurrency 4: stability needs 3 rounds, but there are fewer",
        "a at concurrency 4: p99 needs 459 requests, but there are 300",
    ]
