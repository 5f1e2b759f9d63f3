"""Differences of Triton's cumulative statistics."""

from __future__ import annotations

import pytest

from trimton.perf.measure.server_statistics import merge_statistics, statistics_between


def version(requests, inferences, executions, infer_ns, fail=0):
    def duration(ns):
        return {"count": requests, "ns": ns}

    return {
        "inference_count": inferences,
        "execution_count": executions,
        "inference_stats": {
            "success": duration(10 * infer_ns),
            "fail": {"count": fail, "ns": 1},
            "queue": duration(2 * infer_ns),
            "compute_input": duration(infer_ns // 2),
            "compute_infer": duration(infer_ns),
            "compute_output": duration(infer_ns // 4),
        },
    }


def test_means_are_per_request_between_the_two_readings():
    before = {"model_stats": [version(100, 200, 50, 1_000_000, fail=3)]}
    after = {"model_stats": [version(300, 1000, 250, 9_000_000, fail=5)]}
    found = statistics_between(before, after)
    assert found.requests == 200
    assert found.failures == 2
    assert found.inferences == 800
    assert found.mean_batch == 4
    assert found.compute_infer_us == pytest.approx(40)
    assert found.request_us == pytest.approx(400)
    assert found.queue_us == pytest.approx(80)


def test_all_versions_of_the_model_count_and_absent_counters_are_zero():
    before = {"model_stats": [{"name": "m", "version": "1"}]}
    after = {"model_stats": [version(10, 10, 10, 10_000), version(30, 30, 30, 30_000)]}
    found = statistics_between(before, after)
    assert found.requests == 40
    assert found.compute_infer_us == pytest.approx(1)


def test_no_statistics_or_no_requests_give_none():
    same = {"model_stats": [version(10, 10, 10, 10)]}
    assert statistics_between(None, same) is None
    assert statistics_between(same, None) is None
    assert statistics_between(same, same) is None


def test_merged_windows_weigh_by_requests():
    start = {"model_stats": [version(0, 0, 0, 0)]}
    few = statistics_between(start, {"model_stats": [version(10, 10, 10, 100_000)]})
    many = statistics_between(start, {"model_stats": [version(30, 60, 15, 900_000)]})
    merged = merge_statistics([few, many])
    assert merged.requests == 40
    assert merged.compute_infer_us == pytest.approx(1_000_000 / 40 / 1000)
    assert merged.mean_batch == pytest.approx(70 / 25)
    assert merge_statistics([]) is None
