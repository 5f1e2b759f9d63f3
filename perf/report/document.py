"""Everything a report shows, as one record: the input of every renderer in this package."""

from __future__ import annotations

from typing import Any

from trimton.perf.results import (
    LevelSummary,
    LoadWindow,
    MemoryUse,
    MetricComparison,
    QualitySummary,
    Record,
)
from trimton.perf.verdict import Verdict


class VariantEntry(Record):
    """One variant of the model (the baseline is the first).

    ``transforms`` holds the machine form of each transform's report, in order: ``transform``,
    ``changed``, ``parameters``/``macs``/``size_bytes``/``nodes`` (before and after),
    ``max_relative_difference``, ``steps`` (name, what, count, detail) and ``skipped`` (what, why).
    """

    name: str
    description: str
    digest: str
    size_bytes: int
    parameters: int
    macs: int | None
    nodes: int
    transforms: tuple[dict[str, Any], ...] = ()


class RunDocument(Record):
    """One run of the main job.

    ``levels`` covers every variant at every concurrency; ``windows`` are the raw rounds behind
    them. ``comparisons`` maps a variant's name to its metrics against the baseline.
    ``environment`` holds ``hardware`` (see trimton.perf.hardware), ``versions`` and ``server``
    (name and version as the server itself reports them).
    """

    title: str
    model: str
    created: str
    run_directory: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    variants: tuple[VariantEntry, ...]
    quality: tuple[QualitySummary, ...]
    memory: tuple[MemoryUse, ...]
    levels: tuple[LevelSummary, ...]
    windows: tuple[LoadWindow, ...]
    comparisons: dict[str, tuple[MetricComparison, ...]]
    verdict: Verdict
    notes: tuple[str, ...] = ()
