"""The figures of a run as table cells: which columns there are, and what stands in each.

A new metric is one more row in ``MODEL_COLUMNS`` or ``SPEED_COLUMNS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trimton.perf.measure.histogram import PERCENTILES, requests_needed
from trimton.perf.report import numbers
from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import (
    Interval,
    LevelSummary,
    MemoryUse,
    MetricComparison,
    Outcome,
    QualitySummary,
)


@dataclass(frozen=True)
class Cell:
    """One figure as text; an empty text means that this part is unknown or does not apply.

    ``ratio`` is the variant's value over the baseline's, ``outcome`` what the comparison made
    of it, ``note`` why a figure is missing or what it is made of.
    """

    text: str
    interval: str = ""
    ratio: str = ""
    ratio_interval: str = ""
    outcome: Outcome | None = None
    note: str = ""

    @property
    def is_missing(self) -> bool:
        """True where there is no figure."""
        return self.text == numbers.MISSING


@dataclass(frozen=True)
class ModelView:
    """All that is known of one variant apart from its speed, beside the baseline's."""

    entry: VariantEntry
    baseline: VariantEntry
    quality: QualitySummary | None
    memory: MemoryUse | None
    baseline_memory: MemoryUse | None

    @property
    def is_baseline(self) -> bool:
        """True for the first variant, which the others are compared with."""
        return self.entry is self.baseline


@dataclass(frozen=True)
class SpeedView:
    """One variant at one load; ``comparisons`` with the baseline there, by metric."""

    level: LevelSummary
    comparisons: Mapping[str, MetricComparison] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelColumn:
    """A column of the table of models: ``key`` is its stable name, ``unit`` stands in its head."""

    key: str
    title: str
    unit: str
    cell: Callable[[ModelView], Cell]


@dataclass(frozen=True)
class SpeedColumn:
    """A column of the table of speed."""

    key: str
    title: str
    unit: str
    cell: Callable[[SpeedView], Cell]


def _accuracy(view: ModelView) -> Cell:
    return _share_cell(view.quality.accuracy if view.quality else None)


def _accuracy_drop(view: ModelView) -> Cell:
    if view.is_baseline:
        return Cell(numbers.MISSING)
    return _share_cell(view.quality.accuracy_drop if view.quality else None)


def _agreement(view: ModelView) -> Cell:
    if view.is_baseline:
        return Cell(numbers.MISSING)
    return _share_cell(view.quality.agreement if view.quality else None)


def _sqnr(view: ModelView) -> Cell:
    if view.quality is None or view.is_baseline:
        return Cell(numbers.MISSING)
    if view.quality.sqnr_db is None:
        return Cell("identical", note="the outputs equal the baseline's bit for bit")
    return Cell(numbers.number_text(view.quality.sqnr_db))


def _size(view: ModelView) -> Cell:
    entry, base = view.entry, view.baseline
    return _exact(view, numbers.size_text(entry.size_bytes), entry.size_bytes, base.size_bytes)


def _parameters(view: ModelView) -> Cell:
    entry, base = view.entry, view.baseline
    return _exact(view, numbers.count_text(entry.parameters), entry.parameters, base.parameters)


def _macs(view: ModelView) -> Cell:
    entry, base = view.entry, view.baseline
    return _exact(view, numbers.count_text(entry.macs), entry.macs, base.macs)


def _nodes(view: ModelView) -> Cell:
    entry, base = view.entry, view.baseline
    return _exact(view, f"{entry.nodes:,}", entry.nodes, base.nodes)


def _memory(view: ModelView) -> Cell:
    if view.memory is None:
        return Cell(numbers.MISSING)
    pss = view.memory.under_load_pss_bytes
    base = view.baseline_memory.under_load_pss_bytes if view.baseline_memory else None
    return replace(_exact(view, numbers.size_text(pss), pss, base), note=_readings(view.memory))


def _readings(memory: MemoryUse) -> str:
    readings = memory.under_load_readings
    if len(readings) < 2:
        return ""
    low, high = numbers.size_text(min(readings)), numbers.size_text(max(readings))
    return f"{len(readings)} fresh servers, {low} to {high}"


def _load_time(view: ModelView) -> Cell:
    return Cell(numbers.number_text(view.memory.load_seconds if view.memory else None))


MODEL_COLUMNS: Sequence[ModelColumn] = (
    ModelColumn("accuracy", "Accuracy", "%", _accuracy),
    ModelColumn("accuracy_drop", "Accuracy lost", "pp", _accuracy_drop),
    ModelColumn("agreement", "Agreement", "%", _agreement),
    ModelColumn("sqnr", "SQNR", "dB", _sqnr),
    ModelColumn("size", "Size", "", _size),
    ModelColumn("parameters", "Parameters", "", _parameters),
    ModelColumn("macs", "MACs", "per inference", _macs),
    ModelColumn("nodes", "Nodes", "", _nodes),
    ModelColumn("memory", "Memory", "PSS under load", _memory),
    ModelColumn("load_time", "Load time", "s", _load_time),
)


def _throughput(view: SpeedView) -> Cell:
    return _compared(view, "throughput_rps", view.level.throughput_rps)


def _percentile(name: str, percentile: float) -> Callable[[SpeedView], Cell]:
    def cell(view: SpeedView) -> Cell:
        interval: Interval | None = getattr(view.level.latency_ms, name)
        needed = f"needs {numbers.number_text(requests_needed(percentile))} requests"
        return _compared(view, f"latency_{name}_ms", interval, note=needed)

    return cell


def _cpu(view: SpeedView) -> Cell:
    used = view.level.cpu_ms_per_inference
    return _compared(view, "cpu_ms_per_inference", None if used is None else Interval(value=used))


def _energy(view: SpeedView) -> Cell:
    used = view.level.energy_mj_per_inference
    return _compared(
        view, "energy_mj_per_inference", None if used is None else Interval(value=used)
    )


def _requests(view: SpeedView) -> Cell:
    return Cell(f"{view.level.requests:,}")


def _errors(view: SpeedView) -> Cell:
    errors = view.level.errors
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in sorted(errors.items()))
    return Cell(f"{sum(errors.values()):,}", note=kinds)


def _stable(view: SpeedView) -> Cell:
    return Cell("yes" if view.level.stable else "no", note=f"{view.level.rounds} rounds")


SPEED_COLUMNS: Sequence[SpeedColumn] = (
    SpeedColumn("throughput", "Throughput", "infer/s", _throughput),
    *(
        SpeedColumn(name, name, "ms", _percentile(name, PERCENTILES[name]))
        for name in ("p50", "p95", "p99")
    ),
    SpeedColumn("cpu", "Server CPU", "ms/inference", _cpu),
    SpeedColumn("energy", "Energy", "mJ/inference", _energy),
    SpeedColumn("requests", "Requests", "", _requests),
    SpeedColumn("errors", "Errors", "", _errors),
    SpeedColumn("stable", "Stable", "", _stable),
)


def model_view(document: RunDocument, entry: VariantEntry) -> ModelView:
    """What ``document`` knows of ``entry``."""
    memory = {use.variant: use for use in document.memory}
    baseline = document.variants[0]
    return ModelView(
        entry=entry,
        baseline=baseline,
        quality=next((q for q in document.quality if q.variant == entry.name), None),
        memory=memory.get(entry.name),
        baseline_memory=memory.get(baseline.name),
    )


def _interval_cell(interval: Interval | None, note: str = "") -> Cell:
    text, bounds = numbers.interval_texts(interval)
    return Cell(text, interval=bounds, note=note if text == numbers.MISSING else "")


def _share_cell(interval: Interval | None) -> Cell:
    return Cell(*numbers.share_texts(interval))


def _exact(view: ModelView, text: str, value: float | None, base: float | None) -> Cell:
    """A figure without noise: its ratio needs no interval and gets no outcome."""
    if view.is_baseline or value is None or not base:
        return Cell(text)
    return Cell(text, ratio=numbers.ratio_text(value / base))


def _compared(view: SpeedView, metric: str, interval: Interval | None, note: str = "") -> Cell:
    cell = _interval_cell(interval, note=note)
    comparison = view.comparisons.get(metric)
    if comparison is None or cell.is_missing:
        return cell
    return Cell(
        cell.text,
        interval=cell.interval,
        ratio=numbers.ratio_text(comparison.ratio),
        ratio_interval=numbers.ratio_interval_text(comparison.interval),
        outcome=comparison.outcome,
        note=_detectable(comparison),
    )


def _detectable(comparison: MetricComparison) -> str:
    smallest = comparison.detectable_pct
    if smallest is None:
        return ""
    return f"{numbers.number_text(smallest)} % would have been found in 80 of 100 such comparisons"
