"""The tables of a run, derived once for every renderer: HTML, Markdown and terminal agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimton.perf.report import numbers
from trimton.perf.report.cells import (
    MODEL_COLUMNS,
    SPEED_COLUMNS,
    Cell,
    SpeedView,
    model_view,
)
from trimton.perf.report.document import RunDocument
from trimton.perf.report.level_notes import notes_of
from trimton.perf.results import Interval, LevelSummary, LoadWindow, MetricComparison
from trimton.perf.verdict import Check, CheckOutcome

# Longer lists of places in a note are cut: the table of speed has them all.
_MOST_PLACES = 4


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

    metric: str
    observed: str
    interval: str
    asked: str
    samples: str
    outcome: CheckOutcome
    why: str


@dataclass(frozen=True)
class CheckGroup:
    """All checks of one variant and what they come to."""

    variant: str
    is_candidate: bool
    outcome: CheckOutcome
    checks: tuple[CheckRow, ...]


def load_of(record: LevelSummary | LoadWindow) -> Load:
    """The load of a summary or of a window."""
    return Load(record.concurrency, record.batch)


def loads(document: RunDocument) -> list[Load]:
    """All loads of the run, lightest first."""
    return sorted({load_of(level) for level in document.levels})


def ordered_levels(document: RunDocument) -> list[tuple[int, LevelSummary]]:
    """Every level with the place of its variant: by load, then by variant."""
    index = {entry.name: place for place, entry in enumerate(document.variants)}
    found = [(index[level.variant], level) for level in document.levels if level.variant in index]
    return sorted(found, key=lambda pair: (load_of(pair[1]), pair[0]))


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
    rows = []
    for index, level in ordered_levels(document):
        view = SpeedView(level, _comparisons(document, level))
        cells = {column.key: column.cell(view) for column in SPEED_COLUMNS}
        rows.append(SpeedRow(index, level.variant, role[level.variant], load_of(level), cells))
    return rows


def filled(rows: Sequence[VariantRow] | Sequence[SpeedRow], key: str) -> bool:
    """True where at least one row has a figure in column ``key``, or a reason for having none."""
    return any(not row.cells[key].is_missing or row.cells[key].note for row in rows)


def check_groups(document: RunDocument) -> list[CheckGroup]:
    """The checks of every variant that has some, the candidate's first."""
    candidate = document.verdict.candidate
    return [
        CheckGroup(
            verdict.variant,
            verdict.variant == candidate,
            verdict.outcome,
            tuple(_check_row(check) for check in verdict.checks),
        )
        for verdict in sorted(document.verdict.variants, key=lambda v: v.variant != candidate)
        if verdict.checks
    ]


def notes(document: RunDocument) -> list[str]:
    """What a reader must know to trust the tables: the run's own notes, gaps, errors."""
    found = list(document.notes)
    if document.quality and all(q.accuracy is None for q in document.quality):
        found.append("No accuracy: the samples have no labels; agreement is with the baseline.")
    if not document.memory:
        found.append("Memory was not measured.")
    levels = [level for _, level in ordered_levels(document)]
    if missing := {source: why for level in levels for source, why in level.missing.items()}:
        reasons = "; ".join(f"{source}: {why}" for source, why in sorted(missing.items()))
        found.append(f"Not measured of the server: {reasons}.")
    failed = [level for level in levels if level.errors]
    if failed:
        total = sum(sum(level.errors.values()) for level in failed)
        found.append(f"{total:,} requests failed and are not in the latencies: {_places(failed)}.")
    found.extend(f"{note}." for note in notes_of(levels))
    return found


def _place(level: LevelSummary) -> str:
    return f"{level.variant} at {load_of(level).text}"


def _places(levels: Sequence[LevelSummary]) -> str:
    rest = len(levels) - _MOST_PLACES
    more = [f"{rest} more"] if rest > 0 else []
    return ", ".join([*map(_place, levels[:_MOST_PLACES]), *more])


def _check_row(check: Check) -> CheckRow:
    unit = "share difference" if (check.rule, check.unit) == ("max_drop", "share") else check.unit
    form = _UNITS.get(unit, _Unit(unit, numbers.interval_texts, numbers.limit_text))
    words = _RULE_WORDS.get(check.rule, check.rule)
    observed, interval = form.observed(check.observed)
    return CheckRow(
        metric=check.metric,
        observed=f"{observed} {form.name}".rstrip() if check.samples else numbers.MISSING,
        interval=interval if check.samples else "",
        asked=f"{words} {form.limit(check.limit)} {form.name}".rstrip(),
        samples=f"{check.samples:,}",
        outcome=check.outcome,
        why=check.why,
    )


@dataclass(frozen=True)
class _Unit:
    """How values of a unit are shown: its name, and the texts of an observation and of a limit."""

    name: str
    observed: Callable[[Interval], tuple[str, str]]
    limit: Callable[[float], str]


def _bytes_texts(interval: Interval) -> tuple[str, str]:
    ends = [numbers.size_text(end) for end in (interval.low, interval.high) if end is not None]
    return numbers.size_text(interval.value), f"[{', '.join(ends)}]" if len(ends) == 2 else ""


def _share_limit(limit: float) -> str:
    return numbers.limit_text(100 * limit)


# The gate counts shares in [0, 1]; people read per cent, and percentage points (pp) for a
# difference of them.
_UNITS: Mapping[str, _Unit] = {
    "share": _Unit("%", numbers.share_texts, _share_limit),
    "share difference": _Unit("pp", numbers.share_texts, _share_limit),
    "bytes": _Unit("", _bytes_texts, numbers.size_text),
}
_RULE_WORDS = {
    "max": "at most",
    "min": "at least",
    "max_drop": "lost at most",
    "max_regression_pct": "worse by at most",
    "min_improvement_pct": "better by at least",
}


def _comparisons(document: RunDocument, level: LevelSummary) -> dict[str, MetricComparison]:
    """Those of ``level`` by metric; their names are METRIC@CONCURRENCY."""
    return {
        comparison.name.partition("@")[0]: comparison
        for comparison in document.comparisons.get(level.variant, ())
        if comparison.concurrency == level.concurrency
    }
