"""The gate holds, breaks or leaves open a limit by where the whole interval lies."""

from __future__ import annotations

from typing import Any

import pytest

from trimton.perf.results import (
    Interval,
    LatencySummary,
    LevelSummary,
    MemoryUse,
    MetricComparison,
    QualitySummary,
)
from trimton.plugin.gate import judge, worst
from trimton.plugin.observations import Measured
from trimton.plugin.policy import Limit, Policy


def interval(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=high)


def level(concurrency: int, errors: int = 0, p99: Interval | None = None) -> LevelSummary:
    latency = LatencySummary(
        mean=interval(2.0, 1.9, 2.1), p50=interval(2.0), p90=interval(2.5), p95=interval(3), p99=p99
    )
    return LevelSummary(
        variant="small",
        concurrency=concurrency,
        batch=1,
        rounds=8,
        requests=10_000,
        errors={"timeout": errors} if errors else {},
        throughput_rps=interval(500, 480, 520),
        latency_ms=latency,
        stable=True,
        client_cpu_us_per_request=50,
    )


def measured(**changes: Any) -> Measured:
    throughput = MetricComparison(
        name="throughput_rps@1",
        unit="infer/s",
        higher_is_better=True,
        baseline=400,
        variant=500,
        ratio=1.25,
        interval=(1.2, 1.3),
        outcome="better",
    )
    values: dict[str, Any] = {
        "variant": "small",
        "digest": "sha256:0",
        "size_bytes": 250,
        "baseline_size_bytes": 1000,
        "quality": QualitySummary(
            variant="small",
            samples=2000,
            accuracy=interval(0.93, 0.92, 0.94),
            accuracy_drop=interval(0.004, 0.001, 0.007),
            agreement=interval(0.98, 0.97, 0.99),
            sqnr_db=30.0,
            largest_difference=0.1,
        ),
        "memory": memory(95),
        "baseline_memory": memory(100),
        "levels": {1: level(1)},
        "comparisons": lambda confidence: {"throughput_rps@1": throughput},
    }
    return Measured(**{**values, **changes})


def memory(used: int) -> MemoryUse:
    return MemoryUse(
        variant="small",
        empty_server_pss_bytes=10,
        loaded_pss_bytes=used,
        under_load_pss_bytes=used,
        load_seconds=0.1,
        under_load_readings=(used, used, used),
    )


def policy(**limits: dict[str, Any]) -> Policy:
    return Policy.model_validate({"candidate": "small", "limits": limits})


@pytest.mark.parametrize(
    ("metric", "limit", "outcome"),
    [
        ("accuracy", {"min": 0.9}, "pass"),
        ("accuracy", {"min": 0.93}, "inconclusive"),
        ("accuracy", {"min": 0.95}, "fail"),
        ("accuracy", {"max_drop": 0.01}, "pass"),
        ("accuracy", {"max_drop": 0.005}, "inconclusive"),
        ("accuracy", {"max_drop": 0.0005}, "fail"),
        ("agreement", {"min": 0.97}, "pass"),
        ("sqnr_db", {"min": 20}, "pass"),
        ("sqnr_db", {"min": 40}, "fail"),
        ("size_bytes", {"min_improvement_pct": 75}, "pass"),
        ("size_bytes", {"min_improvement_pct": 76}, "fail"),
        ("size_bytes", {"max": 249}, "fail"),
        ("memory_bytes", {"max_regression_pct": 0}, "pass"),
        ("memory_bytes", {"min_improvement_pct": 10}, "fail"),
        ("throughput_rps", {"min_improvement_pct": 15}, "pass"),
        ("throughput_rps", {"min_improvement_pct": 25}, "inconclusive"),
        ("throughput_rps", {"min_improvement_pct": 35}, "fail"),
        ("throughput_rps", {"max_regression_pct": 5}, "pass"),
        ("latency_mean_ms", {"max": 2.2}, "pass"),
        ("latency_mean_ms", {"max": 2.0}, "inconclusive"),
        ("latency_mean_ms", {"max": 1.0}, "fail"),
    ],
)
def test_a_limit_is_judged_by_the_whole_interval(
    metric: str, limit: dict[str, Any], outcome: str
) -> None:
    verdict = judge(policy(**{metric: limit}), measured())

    assert verdict.outcome == outcome
    assert [check.outcome for check in verdict.checks] == [outcome]


def test_what_was_not_observed_is_inconclusive_and_says_why() -> None:
    verdict = judge(policy(latency_p99_ms={"max": 5}), measured())

    assert verdict.outcome == "inconclusive"
    assert "too few requests for p99" in verdict.checks[0].why
    assert verdict.checks[0].samples == 0


def test_a_relative_limit_without_a_comparison_is_inconclusive() -> None:
    verdict = judge(policy(latency_p50_ms={"max_regression_pct": 5}), measured())

    assert verdict.outcome == "inconclusive"


def test_unlabelled_samples_leave_accuracy_open() -> None:
    unlabelled = measured().quality.model_copy(update={"accuracy": None, "accuracy_drop": None})

    verdict = judge(policy(accuracy={"min": 0.5}), measured(quality=unlabelled))

    assert verdict.outcome == "inconclusive"
    assert "no labels" in verdict.checks[0].why


def test_identical_outputs_hold_every_sqnr_limit() -> None:
    same = measured().quality.model_copy(update={"sqnr_db": None})

    assert judge(policy(sqnr_db={"min": 150}), measured(quality=same)).outcome == "pass"


def test_a_speed_limit_applies_to_the_levels_it_names() -> None:
    two = measured(levels={1: level(1), 4: level(4, p99=interval(9, 8, 10))})

    every = judge(policy(latency_p99_ms={"max": 5}), two)
    only_four = judge(policy(latency_p99_ms={"max": 20, "concurrency": [4]}), two)

    assert [check.metric for check in every.checks] == ["latency_p99_ms @ 1", "latency_p99_ms @ 4"]
    assert [check.outcome for check in every.checks] == ["inconclusive", "fail"]
    assert every.outcome == "fail"
    assert only_four.outcome == "pass"


def test_few_requests_without_errors_do_not_prove_a_low_error_rate() -> None:
    many = judge(policy(error_rate={"max": 0.001}), measured())
    some_errors = judge(policy(error_rate={"max": 0.001}), measured(levels={1: level(1, 100)}))
    few = level(1).model_copy(update={"requests": 100})

    assert many.outcome == "pass"
    assert some_errors.outcome == "fail"
    assert (
        judge(policy(error_rate={"max": 0.001}), measured(levels={1: few})).outcome
        == "inconclusive"
    )


def test_the_worst_outcome_wins() -> None:
    assert worst(["pass", "inconclusive", "fail"]) == "fail"
    assert worst(["pass", "inconclusive"]) == "inconclusive"
    assert worst(["pass"]) == "pass"
    assert worst([]) == "inconclusive"


def test_a_limit_without_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one of"):
        Limit()
