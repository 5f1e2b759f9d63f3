"""What the transforms did to each variant, from their machine form to rows of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimton.perf.report import numbers
from trimton.perf.report.document import RunDocument


@dataclass(frozen=True)
class CostRow:
    """One cost before and after a transform; ``ratio`` is after over before."""

    title: str
    before: str
    after: str
    ratio: str


@dataclass(frozen=True)
class SkippedRow:
    """A reason, and everything that was left alone for it."""

    why: str
    what: tuple[str, ...]


@dataclass(frozen=True)
class TransformRow:
    """One transform: ``steps`` are (what, count)."""

    name: str
    changed: bool
    difference: str
    costs: tuple[CostRow, ...]
    steps: tuple[tuple[str, str], ...]
    skipped: tuple[SkippedRow, ...]

    @property
    def skipped_count(self) -> int:
        """How many things were left alone."""
        return sum(len(row.what) for row in self.skipped)


@dataclass(frozen=True)
class VariantTransforms:
    """All transforms of one variant in their order; ``index`` is the variant's place."""

    index: int
    name: str
    description: str
    digest: str
    transforms: tuple[TransformRow, ...]


_COSTS: Sequence[tuple[str, str, Callable[[float | None], str]]] = (
    ("parameters", "Parameters", numbers.count_text),
    ("macs", "MACs", numbers.count_text),
    ("size_bytes", "Size", numbers.size_text),
    ("nodes", "Nodes", numbers.count_text),
)


def transform_rows(document: RunDocument) -> list[VariantTransforms]:
    """One entry for each variant, the baseline with no transform included."""
    return [
        VariantTransforms(
            index,
            entry.name,
            entry.description,
            entry.digest,
            tuple(_transform_row(report) for report in entry.transforms),
        )
        for index, entry in enumerate(document.variants)
    ]


def _transform_row(report: Mapping[str, Any]) -> TransformRow:
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for skipped in report["skipped"]:
        by_reason[skipped["why"]].append(skipped["what"])
    difference = report["max_relative_difference"]
    return TransformRow(
        name=report["transform"],
        changed=report["changed"],
        difference="not probed" if difference is None else numbers.number_text(difference),
        costs=tuple(_cost_row(report, *cost) for cost in _COSTS if cost[0] in report),
        steps=tuple((step["what"], f"{step['count']:,}") for step in report["steps"]),
        skipped=tuple(SkippedRow(why, tuple(what)) for why, what in by_reason.items()),
    )


def _cost_row(
    report: Mapping[str, Any], key: str, title: str, text: Callable[[float | None], str]
) -> CostRow:
    before, after = report[key]["before"], report[key]["after"]
    ratio = after / before if before and after is not None else None
    return CostRow(title, text(before), text(after), numbers.ratio_text(ratio))
