"""A run as the pipeline records it: real histograms, intervals from the rounds, a seeded noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import (
    Interval,
    LatencySummary,
    LevelSummary,
    LoadWindow,
    MemoryUse,
    MetricComparison,
    Outcome,
    QualitySummary,
    ServerStatistics,
)
from trimton.perf.verdict import Check, VariantVerdict, Verdict

MIB = 1024 * 1024
WINDOW_S = 2.0
EVALUATED = 2000
Rng = np.random.Generator


@dataclass(frozen=True)
class Arm:
    """What one variant is like: ``service_ms`` is the server's compute time of one request."""

    name: str
    size_bytes: int
    service_ms: float
    correct: int
    agreeing: int
    memory_bytes: int
    nodes: int
    transforms: tuple[dict[str, Any], ...] = ()


def transform(
    name: str, size: tuple[int, int], nodes: tuple[int, int], **more: Any
) -> dict[str, Any]:
    """The machine form of a transform's report."""
    return {
        "transform": name,
        "changed": True,
        "parameters": {"before": 1_193_482, "after": 1_190_922},
        "macs": {"before": 74_382_336, "after": 74_382_336},
        "size_bytes": {"before": size[0], "after": size[1]},
        "nodes": {"before": nodes[0], "after": nodes[1]},
        "max_relative_difference": 8.3e-7,
        "steps": [
            {
                "name": "batch_norm",
                "what": "BatchNormalization folded into Conv",
                "count": 17,
                "detail": {},
            }
        ],
        "skipped": [],
        **more,
    }


FUSE = transform(
    "fuse",
    (4_812_544, 4_790_112),
    (63, 46),
    skipped=[
        {"what": "/block3/Add", "why": "both inputs are activations"},
        {"what": "/block4/Add", "why": "both inputs are activations"},
    ],
)
QUANTIZE = transform(
    "quantize",
    (4_790_112, 1_263_920),
    (46, 138),
    max_relative_difference=0.0412,
    steps=[
        {
            "name": "weights",
            "what": "weights of Conv to int8, per output channel",
            "count": 17,
            "detail": {},
        },
        {
            "name": "activations",
            "what": "activations to uint8 (minmax on 512 samples)",
            "count": 29,
            "detail": {},
        },
    ],
    skipped=[{"what": "/head/Gemm", "why": "excluded by the recipe"}],
)

ARMS = (
    Arm("baseline", 4_812_544, 3.92, 1869, 2000, 183 * MIB, 63),
    Arm("fused", 4_790_112, 3.58, 1869, 2000, 181 * MIB, 46, (FUSE,)),
    Arm("fused_int8", 1_263_920, 3.81, 1865, 1983, 146 * MIB, 138, (FUSE, QUANTIZE)),
)

MakeDocument = Callable[..., RunDocument]


@pytest.fixture(scope="session")
def make_document() -> MakeDocument:
    """Builds a run; every argument of ``build_document`` can be given."""
    return build_document


@pytest.fixture(scope="session")
def document() -> RunDocument:
    """The usual run: baseline, fused, fused and quantised; concurrency 1 and 4; six rounds."""
    return build_document()


def build_document(
    arms: Sequence[Arm] = ARMS,
    concurrencies: Sequence[int] = (1, 4),
    rounds: int = 6,
    window_s: float = WINDOW_S,
    errors: int = 0,
    with_labels: bool = True,
    with_server: bool = True,
    with_memory: bool = True,
    outcome: str = "pass",
    seed: int = 7,
) -> RunDocument:
    """A run of ``arms``, the first of which is the baseline and the last the candidate."""
    rng = np.random.default_rng(seed)
    windows = tuple(
        measure(arm, concurrency, number, window_s, errors, with_server, rng)
        for number in range(rounds)
        for concurrency in concurrencies
        for arm in (arms if number % 2 == 0 else tuple(reversed(arms)))
    )
    levels = tuple(
        summarise(
            [w for w in windows if (w.variant, w.concurrency) == (arm.name, concurrency)], rng
        )
        for concurrency in concurrencies
        for arm in arms
    )
    comparisons = {
        arm.name: compare(arms[0].name, arm.name, concurrencies, windows, levels, rng)
        for arm in arms[1:]
    }
    return RunDocument(
        title="fashion_resnet: smaller at equal accuracy",
        model="fashion_resnet",
        created="2026-03-02T10:15:00Z",
        run_directory="runs/fashion_resnet-20260302-101500",
        environment=ENVIRONMENT,
        settings={
            "seed": 1,
            "rounds": rounds,
            "window_s": window_s,
            "warmup_s": 0.3,
            "concurrency": list(concurrencies),
            "batch": 1,
            "evaluation_samples": EVALUATED,
        },
        variants=tuple(entry(arm) for arm in arms),
        quality=tuple(quality(arm, arms[0], with_labels) for arm in arms),
        memory=tuple(memory(arm) for arm in arms) if with_memory else (),
        levels=levels,
        windows=windows,
        comparisons=comparisons,
        verdict=verdict(arms, levels, comparisons, outcome),
    )


ENVIRONMENT: dict[str, Any] = {
    "hardware": {
        "cpu_model": "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
        "cores_available": 2,
        "instruction_sets": ["avx2", "fma", "avx512f", "avx512_vnni"],
        "int8_dot_product": True,
        "memory_total_bytes": 16 * 1024 * MIB,
    },
    "versions": {"trimton": "0.1.0", "onnxruntime": "1.22.0", "python": "3.11.9"},
    "server": {"name": "triton", "version": "2.59.0"},
}


def measure(
    arm: Arm,
    concurrency: int,
    number: int,
    window_s: float,
    errors: int,
    with_server: bool,
    rng: Rng,
) -> LoadWindow:
    """One window: lognormal service, a queue above two requests, a drift common to all arms."""
    drift = 1 + 0.03 * np.sin(number) + rng.normal(0, 0.008)
    busy = max(1.0, concurrency / 2)
    service = arm.service_ms * drift * (1.18 if concurrency > 1 else 1.0)
    mean_ms = service * busy + 0.46
    requests = int(window_s * 1000 * concurrency / mean_ms)
    latencies_ms = rng.lognormal(np.log(mean_ms) - 0.01, 0.12, requests)
    latencies_ms[rng.random(requests) < 0.012] *= 1.9
    histogram = LatencyHistogram()
    histogram.record_ns(latencies_ms * 1e6)
    server = ServerStatistics(
        requests=requests,
        failures=0,
        inferences=requests,
        executions=requests,
        request_us=1000 * (latencies_ms.mean() - 0.41),
        queue_us=1000 * service * (busy - 1) + 38,
        compute_input_us=21.0,
        compute_infer_us=1000 * service - 80,
        compute_output_us=17.0,
        mean_batch=1.0,
    )
    return LoadWindow(
        variant=arm.name,
        concurrency=concurrency,
        batch=1,
        round=number,
        duration_s=window_s,
        requests=requests,
        errors={"timeout": errors} if errors else {},
        throughput_rps=requests / window_s,
        latency_histogram=histogram.encode(),
        latency_mean_ms=float(latencies_ms.mean()),
        client_cpu_us_per_request=71.0,
        server=server if with_server else None,
        cpu_ms_per_inference=service * 1.03,
    )


def bootstrap(values: Sequence[float], rng: Rng) -> Interval:
    """Mean of ``values`` with its 95 % percentile-bootstrap interval."""
    array = np.asarray(values)
    means = rng.choice(array, (400, len(array))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value=float(array.mean()), low=float(low), high=float(high))


def summarise(windows: Sequence[LoadWindow], rng: Rng) -> LevelSummary:
    """The level that ``windows`` are the rounds of."""
    histograms = [LatencyHistogram.decode(w.latency_histogram) for w in windows]
    merged = LatencyHistogram.merged(histograms)

    def percentile(share: float) -> Interval | None:
        whole = merged.percentile_ms(share)
        if whole is None:
            return None
        spread = float(rng.uniform(0.004, 0.02))
        return Interval(value=whole, low=whole * (1 - spread), high=whole * (1 + spread))

    first = windows[0]
    return LevelSummary(
        variant=first.variant,
        concurrency=first.concurrency,
        batch=1,
        rounds=len(windows),
        requests=sum(w.requests for w in windows),
        errors={"timeout": total}
        if (total := sum(sum(w.errors.values()) for w in windows))
        else {},
        throughput_rps=bootstrap([w.throughput_rps for w in windows], rng),
        latency_ms=LatencySummary(
            mean=bootstrap([w.latency_mean_ms for w in windows], rng),
            p50=percentile(0.5),
            p90=percentile(0.9),
            p95=percentile(0.95),
            p99=percentile(0.99),
        ),
        stable=True,
        client_cpu_us_per_request=71.0,
        server=first.server,
        cpu_ms_per_inference=first.cpu_ms_per_inference,
    )


def compare(
    baseline: str,
    variant: str,
    concurrencies: Sequence[int],
    windows: Sequence[LoadWindow],
    levels: Sequence[LevelSummary],
    rng: Rng,
) -> tuple[MetricComparison, ...]:
    """Throughput and percentiles at each concurrency, named METRIC@CONCURRENCY."""
    found = []
    for concurrency in concurrencies:
        at = {lv.variant: lv for lv in levels if lv.concurrency == concurrency}
        rps = {
            n: [w.throughput_rps for w in windows if (w.variant, w.concurrency) == (n, concurrency)]
            for n in (baseline, variant)
        }
        ratio = bootstrap([b / a for a, b in zip(rps[baseline], rps[variant], strict=True)], rng)
        found.append(
            comparison(
                f"throughput_rps@{concurrency}",
                "infer/s",
                True,
                at[baseline].throughput_rps.value,
                at[variant].throughput_rps.value,
                ratio,
            )
        )
        for name in ("p50", "p90", "p95", "p99"):
            one, other = (getattr(at[n].latency_ms, name) for n in (baseline, variant))
            if one and other:
                ratio = Interval(
                    value=other.value / one.value,
                    low=other.low / one.high,
                    high=other.high / one.low,
                )
                found.append(
                    comparison(
                        f"latency_{name}_ms@{concurrency}",
                        "ms",
                        False,
                        one.value,
                        other.value,
                        ratio,
                    )
                )
    return tuple(found)


def comparison(
    name: str, unit: str, higher_is_better: bool, baseline: float, variant: float, ratio: Interval
) -> MetricComparison:
    """A comparison with the margin of 3 % that the run's policy has."""
    low, high = ratio.low or ratio.value, ratio.high or ratio.value
    outcome: Outcome = "inconclusive"
    if low >= 0.97 and high <= 1.03:
        outcome = "equivalent"
    elif low > 1 or high < 1:
        outcome = "better" if (low > 1) == higher_is_better else "worse"
    return MetricComparison(
        name=name,
        unit=unit,
        higher_is_better=higher_is_better,
        baseline=baseline,
        variant=variant,
        ratio=ratio.value,
        interval=(low, high),
        outcome=outcome,
    )


def entry(arm: Arm) -> VariantEntry:
    """What the pipeline says of ``arm``'s model."""
    return VariantEntry(
        name=arm.name,
        description=f"the {arm.name} model",
        digest=f"sha256:{hash_of(arm.name)}",
        size_bytes=arm.size_bytes,
        parameters=1_193_482 if not arm.transforms else 1_190_922,
        macs=74_382_336,
        nodes=arm.nodes,
        transforms=arm.transforms,
    )


def hash_of(name: str) -> str:
    """A digest that looks like one."""
    return (name.encode().hex() * 8)[:64]


def share(count: int) -> Interval:
    """A share of the evaluated samples with its normal-approximation interval."""
    value = count / EVALUATED
    reach = 1.96 * (value * (1 - value) / EVALUATED) ** 0.5
    return Interval(value=value, low=value - reach, high=min(value + reach, 1.0))


def quality(arm: Arm, baseline: Arm, with_labels: bool) -> QualitySummary:
    """How good ``arm`` is on the evaluation samples."""
    drop = (baseline.correct - arm.correct) / EVALUATED
    same = arm.agreeing == EVALUATED
    return QualitySummary(
        variant=arm.name,
        samples=EVALUATED,
        accuracy=share(arm.correct) if with_labels else None,
        accuracy_drop=Interval(value=drop, low=drop - 0.004, high=drop + 0.004)
        if with_labels
        else None,
        agreement=share(arm.agreeing),
        sqnr_db=None if arm is baseline else 118.2 if same else 27.4,
        largest_difference=0.0 if arm is baseline else 0.31,
    )


def memory(arm: Arm) -> MemoryUse:
    """The memory of a server with ``arm`` alone."""
    return MemoryUse(
        variant=arm.name,
        empty_server_pss_bytes=61 * MIB,
        loaded_pss_bytes=arm.memory_bytes - 22 * MIB,
        under_load_pss_bytes=arm.memory_bytes,
        load_seconds=1.37,
    )


def verdict(
    arms: Sequence[Arm],
    levels: Sequence[LevelSummary],
    comparisons: dict[str, tuple[MetricComparison, ...]],
    outcome: str,
) -> Verdict:
    """A verdict whose last check has ``outcome``."""
    candidate = arms[-1]
    checks = [
        Check(
            metric="accuracy",
            rule="max_drop",
            observed=Interval(value=0.002, low=-0.002, high=0.006),
            limit=0.01,
            unit="share",
            samples=EVALUATED,
            outcome="pass",
            why="the whole interval is at most the limit",
        ),
        Check(
            metric="size_bytes",
            rule="min_improvement_pct",
            observed=Interval(value=73.74),
            limit=50,
            unit="%",
            samples=1,
            outcome="pass",
            why="it is at least the limit",
        ),
        Check(
            metric="memory_bytes",
            rule="max",
            observed=Interval(value=candidate.memory_bytes),
            limit=160 * MIB,
            unit="bytes",
            samples=1,
            outcome="pass",
            why="it is at most the limit",
        ),
        Check(
            metric="throughput_rps @ 4",
            rule="max_regression_pct",
            observed=Interval(value=-3.1, low=-4.2, high=-1.9),
            limit=3,
            unit="%",
            samples=6,
            outcome=outcome,
            why="the whole interval is at most the limit",
        ),
    ]
    return Verdict(
        model="fashion_resnet",
        outcome=outcome,
        candidate=candidate.name,
        baseline_digest="sha256:aa",
        candidate_digest="sha256:bb",
        created="2026-03-02T10:15:00Z",
        environment=ENVIRONMENT,
        settings={},
        variants=(
            VariantVerdict(
                variant=candidate.name, digest="sha256:bb", outcome=outcome, checks=tuple(checks)
            ),
        ),
    )
