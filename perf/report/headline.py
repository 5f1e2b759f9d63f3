"""The verdict in words, and the handful of figures that a reader wants first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trimton.core.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_PASS
from trimton.perf.report.cells import Cell
from trimton.perf.report.document import RunDocument
from trimton.perf.report.rows import loads, speed_rows, variant_rows
from trimton.perf.verdict import Check, CheckOutcome

_MOST_NAMED = 3

EXIT_CODES: Mapping[CheckOutcome, int] = {
    "pass": EXIT_PASS,
    "fail": EXIT_FAIL,
    "inconclusive": EXIT_INCONCLUSIVE,
}


# Outcomes of checks and of comparisons: a word and a sign stand beside every colour.
SIGNS: Mapping[str, str] = {
    "pass": "✓",
    "fail": "✕",
    "inconclusive": "?",
    "better": "▲",
    "worse": "▼",
    "equivalent": "=",
}


@dataclass(frozen=True)
class Headline:
    """``outcome`` with one sentence that says what it means; ``exit_code`` is the command's."""

    outcome: CheckOutcome
    sentence: str
    exit_code: int


@dataclass(frozen=True)
class Highlight:
    """One figure of the candidate beside the baseline's."""

    title: str
    unit: str
    candidate: Cell
    baseline: Cell


def headline(document: RunDocument) -> Headline:
    """What the verdict means for the candidate."""
    verdict = document.verdict
    checks = [c for v in verdict.variants if v.variant == verdict.candidate for c in v.checks]
    sentence = _SENTENCES[verdict.outcome](verdict.candidate, document.variants[0].name, checks)
    return Headline(verdict.outcome, sentence, EXIT_CODES[verdict.outcome])


def other_verdicts(document: RunDocument) -> list[str]:
    """One sentence for each judged variant that is not the candidate."""
    return [
        f"{other.variant}: {_OTHER_SENTENCES[other.outcome](list(other.checks))}"
        for other in document.verdict.variants
        if other.variant != document.verdict.candidate
    ]


def highlights(document: RunDocument) -> list[Highlight]:
    """The candidate against the baseline: size, memory, accuracy, and speed at the highest load.

    Empty where the candidate is the baseline itself.
    """
    models = {row.role: row for row in variant_rows(document)}
    if "candidate" not in models:
        return []
    found = [
        Highlight(title, unit, models["candidate"].cells[key], models["baseline"].cells[key])
        for key, title, unit in _MODEL_HIGHLIGHTS
    ]
    for load in loads(document)[-1:]:
        at = {row.role: row for row in speed_rows(document) if row.load == load}
        if "candidate" in at and "baseline" in at:
            found += [
                Highlight(
                    f"{title}, {load.text}",
                    unit,
                    at["candidate"].cells[key],
                    at["baseline"].cells[key],
                )
                for key, title, unit in _SPEED_HIGHLIGHTS
            ]
    return [h for h in found if not h.candidate.is_missing]


_MODEL_HIGHLIGHTS = (
    ("size", "Size", ""),
    ("memory", "Memory under load", ""),
    ("accuracy", "Accuracy", "%"),
    ("agreement", "Agreement with the baseline", "%"),
)
_SPEED_HIGHLIGHTS = (
    ("throughput", "Throughput", "infer/s"),
    ("p95", "p95 latency", "ms"),
)


def _passed(candidate: str, baseline: str, checks: list[Check]) -> str:
    if not checks:
        return f"{candidate} may ship: the policy asks for nothing."
    held = "the policy's one check holds" if len(checks) == 1 else f"all {len(checks)} checks hold"
    return f"{candidate} may ship in place of {baseline}: {held}."


def _failed(candidate: str, baseline: str, checks: list[Check]) -> str:
    broken = _with(checks, "fail")
    return (
        f"{candidate} must not ship: {len(broken)} of {_counted(len(checks))} failed against"
        f" {baseline} ({_named(broken)})."
    )


def _undecided(candidate: str, baseline: str, checks: list[Check]) -> str:
    open_checks = _with(checks, "inconclusive")
    return (
        f"{candidate} is not proven: {len(open_checks)} of {_counted(len(checks))} against"
        f" {baseline} could not be decided ({_named(open_checks)});"
        " more rounds or more samples narrow the intervals."
    )


_SENTENCES: Mapping[CheckOutcome, Callable[[str, str, list[Check]], str]] = {
    "pass": _passed,
    "fail": _failed,
    "inconclusive": _undecided,
}


_OTHER_SENTENCES: Mapping[CheckOutcome, Callable[[list[Check]], str]] = {
    "pass": lambda checks: f"would pass {_counted(len(checks))} of the policy",
    "fail": lambda checks: f"would fail ({_named(_with(checks, 'fail'))})",
    "inconclusive": lambda checks: f"is undecided ({_named(_with(checks, 'inconclusive'))})",
}


def _with(checks: list[Check], outcome: CheckOutcome) -> list[Check]:
    return [check for check in checks if check.outcome == outcome]


def _counted(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"


def _named(checks: list[Check]) -> str:
    names = [c.metric for c in checks[:_MOST_NAMED]]
    rest = len(checks) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")
