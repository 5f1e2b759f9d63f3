"""The verdict: what was observed against what was asked, check by check.

The records are the versioned schema of ``verdict.json``; deciding is the gate's work.
"""

from __future__ import annotations

from typing import Any, Literal

from trimton.perf.results import Interval, Record

VERDICT_SCHEMA = 1

CheckOutcome = Literal["pass", "fail", "inconclusive"]


class Check(Record):
    """One limit of the policy, applied to one variant.

    ``observed`` carries the interval that was compared with ``limit``; ``unit`` names the unit of
    both ("%" for changes against the baseline), ``confidence`` the level of the interval.
    ``samples`` is the number of independent values behind the interval: rounds for speed, labelled
    samples for accuracy, 1 for a size.
    """

    metric: str
    rule: str
    observed: Interval
    limit: float
    unit: str
    samples: int
    outcome: CheckOutcome
    why: str
    confidence: float = 0.95


class VariantVerdict(Record):
    """All checks of one variant; the outcome is the worst of them."""

    variant: str
    digest: str
    outcome: CheckOutcome
    checks: tuple[Check, ...]


class Verdict(Record):
    """The answer of a run. ``outcome`` is that of ``candidate``, the variant that would ship."""

    schema_version: int = VERDICT_SCHEMA
    model: str
    outcome: CheckOutcome
    candidate: str
    baseline_digest: str
    candidate_digest: str
    created: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    variants: tuple[VariantVerdict, ...]
