"""What ``perf`` prints, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from trimton.perf.load.peak_search import Peak
from trimton.perf.load.slices import Slice
from trimton.perf.measure.histogram import PERCENTILES
from trimton.perf.report.level_notes import notes_of
from trimton.perf.targets.endpoint import ServerMetadata
from trimton.plugin.cli.level_output import level_json, level_table, server_json
from trimton.plugin.load_test import LoadTest, Measuring
from trimton.plugin.subjects import Subject
from trimton.plugin.wire import Wire


@dataclass(frozen=True)
class Heading:
    """What was loaded, and how; ``protocol`` is None in this process."""

    model: str
    server: ServerMetadata | None
    protocol: str | None
    batch: int

    @classmethod
    def of(cls, subject: Subject, wire: Wire, batch: int) -> Heading:
        """The heading for ``subject`` loaded over ``wire``."""
        protocol = None if subject.server is None else wire.protocol.name
        return cls(subject.name, subject.server, protocol, batch)

    @property
    def where(self) -> str:
        """The place in words."""
        if self.server is None:
            return "ONNX Runtime in this process"
        return f"{self.server.name} {self.server.version} over {self.protocol}"


def test_json(
    test: LoadTest, measuring: Measuring, heading: Heading, slices: Sequence[Slice]
) -> dict[str, Any]:
    """The object of ``--json``."""
    rule = measuring.rule
    return {
        "model": heading.model,
        "server": server_json(heading.server),
        "protocol": heading.protocol,
        "batch": heading.batch,
        "rounds": None if rule else measuring.rounds,
        "stability_rule": asdict(rule) if rule else None,
        "window_s": None if measuring.request_count else measuring.window_s,
        "request_count": measuring.request_count,
        "warmup": asdict(test.warmup) if test.warmup else None,
        "levels": [level_json(level) for level in test.levels],
        "peak": asdict(test.peak) if test.peak else None,
        "slices": [asdict(part) for part in slices],
        "notes": list(test.notes),
    }


def print_test(
    screen: Console,
    test: LoadTest,
    measuring: Measuring,
    heading: Heading,
    slices: Sequence[Slice],
) -> None:
    """Tables and notes."""
    screen.print(f"{heading.model} on {heading.where}, {_how(measuring)}")
    if test.warmup is not None:
        steady = "steady after" if test.warmup.found else "not steady within"
        screen.print(f"latency {steady} {test.warmup.seconds:.1f} s of load")
    if test.peak is not None:
        screen.print(_peak_table(test.peak))
        screen.print(_peak_sentence(test.peak), soft_wrap=True)
    if test.levels:
        screen.print(level_table(test.levels))
    if slices:
        screen.print()
        screen.print(_slice_table(slices))
    for note in (*test.notes, *notes_of(test.levels)):
        screen.print(note, soft_wrap=True)


def _how(measuring: Measuring) -> str:
    length = (
        f"{measuring.window_s:g} s"
        if measuring.request_count is None
        else f"{measuring.request_count} requests"
    )
    if measuring.rule is not None:
        return f"windows of {length} until three agree to {measuring.rule.spread:.0%}"
    windows = "window" if measuring.rounds == 1 else "windows"
    return f"{measuring.rounds} {windows} of {length} at each level"


def _peak_table(peak: Peak) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("rate/s", "seconds", "requests", "over limit", "errors", "latency ms"):
        table.add_column(heading, justify="right")
    table.add_column("holds")
    for trial in peak.trials:
        table.add_row(
            f"{trial.rate_rps:.1f}",
            f"{trial.duration_s:.1f}",
            str(trial.requests),
            str(trial.over_limit),
            str(trial.errors),
            "-" if trial.percentile_ms is None else f"{trial.percentile_ms:.2f}",
            ("yes" if trial.holds else "no") + ("" if trial.certain else ", as far as seen"),
        )
    return table


def _peak_sentence(peak: Peak) -> str:
    if peak.rate_rps is None:
        return "no rate keeps the limits, however low."
    if peak.broken_rps is None:
        return f"peak: at least {peak.rate_rps:.1f} requests/s, the most that this client sends."
    return f"peak: {peak.rate_rps:.1f} requests/s ({peak.broken_rps:.1f} break the limits)."


def _slice_table(slices: Sequence[Slice]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("from s", "requests/s", "mean", *PERCENTILES):
        table.add_column(heading, justify="right")
    for part in slices:
        table.add_row(
            f"{part.start_s:.2f}",
            f"{part.rate_rps:.1f}",
            *("-" if value is None else f"{value:.2f}" for value in part.latency_ms.values()),
        )
    return table
