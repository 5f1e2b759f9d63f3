"""The tables of a run, derived once for every renderer: HTML, Markdown and terminal agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from trimton.perf.measure.histogram import PERCENTILES, requests_needed
from trimton.perf.report import numbers
from trimton.perf.report.cells import (
    MODEL_COLUMNS,
    SPEED_COLUMNS,
    Cell,
    SpeedView,
    model_view,
)
from trimton.perf.report.document import RunDocument
from trimton.perf.results import Interval, LevelSummary, LoadWindow, MetricComparison
from trimton.perf.verdict import Check, CheckOutcome


@dataclass(frozen=True, order=True)
class Load:
    """One load: requests in flight, and samples per request."""

    concurrency: int
    batch: int

    @property
    def text(self) -> str:
        """As a heading."""
        batch = f", batch {self.batch}" if self.batch != 1 else ""
        return f"concurrency {self.concurrency}{batch}"


@dataclass(frozen=True)
class VariantRow:
    """One variant in the table of models. ``index`` is its place, and so its colour."""

    index: int
    name: str
    role: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class SpeedRow:
    """One variant at one load in the table of speed."""

    index: int
    name: str
    role: str
    load: Load
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class CheckRow:
    """One check of the policy as text; ``observed`` and ``asked`` carry the unit."""

    variant: str
    metric: str
    observed: str
    interval: str
    asked: str
    samples: str
    outcome: CheckOutcome
    why: str


def load_of(record: LevelSummary | LoadWindow) -> Load:
    """The load of a summary or of a window."""
    return Load(record.concurrency, record.batch)


def loads(document: RunDocument) -> list[Load]:
    """All loads of the run, lightest first."""
    return sorted({load_of(level) for level in document.levels})


def roles(document: RunDocument) -> dict[str, str]:
    """ "baseline", "candidate" or "" by name of variant."""
    found = {entry.name: "" for entry in document.variants}
    found[document.verdict.candidate] = "candidate"
    found[document.variants[0].name] = "baseline"
    return found


def variant_rows(document: RunDocument) -> list[VariantRow]:
    """One row per variant, the baseline first."""
    role = roles(document)
    return [
        VariantRow(
            index,
            entry.name,
            role[entry.name],
            {column.key: column.cell(model_view(document, entry)) for column in MODEL_COLUMNS},
        )
        for index, entry in enumerate(document.variants)
    ]


def speed_rows(document: RunDocument) -> list[SpeedRow]:
    """One row per load and variant, the lightest load first, the baseline first in each."""
    role = roles(document)
    index = {entry.name: place for place, entry in enumerate(document.variants)}
    levels = [level for level in document.levels if level.variant in index]
    levels.sort(key=lambda level: (load_of(level), index[level.variant]))
    rows = []
    for level in levels:
        view = SpeedView(level, _comparisons(document, level))
        cells = {column.key: column.cell(view) for column in SPEED_COLUMNS}
        name = level.variant
        rows.append(SpeedRow(index[name], name, role[name], load_of(level), cells))
    return rows


def filled(rows: Sequence[VariantRow] | Sequence[SpeedRow], key: str) -> bool:
    """True where at least one row has a figure in column ``key``."""
    return any(not row.cells[key].is_missing for row in rows)


def check_rows(document: RunDocument) -> list[CheckRow]:
    """Every check of every variant, the candidate's first."""
    candidate = document.verdict.candidate
    verdicts = sorted(document.verdict.variants, key=lambda v: v.variant != candidate)
    return [_check_row(v.variant, check) for v in verdicts for check in v.checks]


def notes(document: RunDocument) -> list[str]:
    """What a reader must know to trust the tables: gaps, errors, unsteady rounds, own notes."""
    found = list(document.notes)
    missing = [
        f"{name} needs {requests_needed(percentile):,}"
        for name, percentile in PERCENTILES.items()
        if any(getattr(level.latency_ms, name) is None for level in document.levels)
    ]
    if missing:
        found.append(
            f"{numbers.MISSING} stands where too few requests lie behind a percentile:"
            f" {', '.join(missing)} requests."
        )
    if document.quality and all(q.accuracy is None for q in document.quality):
        found.append(
            "No accuracy: the samples have no labels. Agreement compares with the baseline."
        )
    if not document.memory:
        found.append("Memory was not measured.")
    for level in document.levels:
        place = f"{level.variant} at {load_of(level).text}"
        found.extend(f"{place}: {note}" for note in level.notes)
        if level.errors:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(level.errors.items()))
            found.append(f"{place}: requests failed ({kinds}); they are not in the latencies.")
        if not level.stable:
            found.append(f"{place}: the rounds differ by more than the stability limit.")
    return found


def _check_row(variant: str, check: Check) -> CheckRow:
    unit = "points" if (check.rule, check.unit) == ("max_drop", "share") else check.unit
    text = _UNIT_TEXTS.get(unit, partial(_with_unit, unit=unit))
    words = _RULE_WORDS.get(check.rule, check.rule)
    observed, interval = text(check.observed)
    asked, _ = text(Interval(value=check.limit))
    return CheckRow(
        variant=variant,
        metric=check.metric,
        observed=observed if check.samples else numbers.MISSING,
        interval=interval if check.samples else "",
        asked=f"{words} {asked}",
        samples=f"{check.samples:,}",
        outcome=check.outcome,
        why=check.why,
    )


def _with_unit(interval: Interval, unit: str, scale: float = 1.0) -> tuple[str, str]:
    value, bounds = numbers.interval_texts(interval, scale)
    return f"{value} {unit}".rstrip(), bounds


def _in_bytes(interval: Interval) -> tuple[str, str]:
    ends = [numbers.size_text(end) for end in (interval.low, interval.high) if end is not None]
    return numbers.size_text(interval.value), f"[{', '.join(ends)}]" if len(ends) == 2 else ""


# The gate counts shares in [0, 1]; people read per cent, and points for a difference of them.
_UNIT_TEXTS: Mapping[str, Callable[[Interval], tuple[str, str]]] = {
    "share": partial(_with_unit, unit="%", scale=100),
    "points": partial(_with_unit, unit="points", scale=100),
    "bytes": _in_bytes,
}
_RULE_WORDS = {
    "max": "at most",
    "min": "at least",
    "max_drop": "lost at most",
    "max_regression_pct": "worse by at most",
    "min_improvement_pct": "better by at least",
}


def _comparisons(document: RunDocument, level: LevelSummary) -> dict[str, MetricComparison]:
    """Those of ``level`` by metric; a comparison is named METRIC@CONCURRENCY."""
    found = {}
    for comparison in document.comparisons.get(level.variant, ()):
        metric, _, concurrency = comparison.name.partition("@")
        if concurrency == str(level.concurrency):
            found[metric] = comparison
    return found
