"""A run as the pipeline records it: real histograms, intervals from the rounds, a seeded noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import (
    Interval,
    LoadWindow,
    MemoryUse,
    QualitySummary,
    ServerStatistics,
)
from trimton.perf.stats.compare import compare_variants
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.verdict import Check, CheckOutcome, VariantVerdict, Verdict

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
    names: Sequence[str] = ("baseline", "fused", "fused_int8"),
    concurrencies: Sequence[int] = (1, 4),
    rounds: int = 6,
    window_s: float = WINDOW_S,
    errors: int = 0,
    with_labels: bool = True,
    with_server: bool = True,
    with_memory: bool = True,
    outcome: CheckOutcome = "pass",
    seed: int = 7,
) -> RunDocument:
    """A run of variants, the first of which is the baseline and the last the candidate."""
    arms = arms_named(names)
    rng = np.random.default_rng(seed)
    windows = tuple(
        measure(arm, concurrency, number, window_s, errors, with_server, rng)
        for number in range(rounds)
        for concurrency in concurrencies
        for arm in (arms if number % 2 == 0 else tuple(reversed(arms)))
    )
    levels = summarise_levels(windows, seed=seed)
    comparisons = {
        arm.name: compare_variants(windows, baseline=arms[0].name, variant=arm.name, seed=seed)
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
        verdict=verdict(arms, outcome),
    )


def arms_named(names: Sequence[str]) -> list[Arm]:
    """The usual arms under ``names``; beyond the third each is smaller and faster."""
    further = [
        replace(ARMS[-1], service_ms=3.8 - 0.3 * place, size_bytes=1_200_000 - 90_000 * place)
        for place in range(1, len(names))
    ]
    return [replace(arm, name=name) for arm, name in zip([*ARMS, *further], names, strict=False)]


ENVIRONMENT: dict[str, Any] = {
    "hardware": {
        "cpu_model": "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
        "cores": 2,
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


def entry(arm: Arm) -> VariantEntry:
    """What the pipeline says of ``arm``'s model."""
    return VariantEntry(
        name=arm.name,
        description=f"the {arm.name} model",
        digest=digest(arm.name),
        size_bytes=arm.size_bytes,
        parameters=1_193_482 if not arm.transforms else 1_190_922,
        macs=74_382_336,
        nodes=arm.nodes,
        transforms=arm.transforms,
    )


def digest(name: str) -> str:
    """What a digest looks like."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


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


def verdict(arms: Sequence[Arm], outcome: CheckOutcome) -> Verdict:
    """A verdict on every arm but the baseline; the last check of each has ``outcome``."""
    candidate = arms[-1].name
    judged_arms = arms[1:] or arms
    return Verdict(
        model="fashion_resnet",
        outcome=outcome,
        candidate=candidate,
        baseline_digest=digest(arms[0].name),
        candidate_digest=digest(candidate),
        created="2026-03-02T10:15:00Z",
        environment=ENVIRONMENT,
        settings={},
        variants=tuple(judged(arm, outcome) for arm in judged_arms),
    )


def judged(arm: Arm, outcome: CheckOutcome) -> VariantVerdict:
    """Four checks of ``arm``: accuracy, size, memory and one of speed with ``outcome``."""
    pp = Interval(value=0.0021, low=-0.0018, high=0.0059)
    smaller = Interval(value=100 - 100 * arm.size_bytes / ARMS[0].size_bytes)
    used = Interval(value=arm.memory_bytes)
    slower = Interval(value=-3.1, low=-4.2, high=-1.9)
    checks = (
        check("accuracy", "max_drop", pp, 0.01, "share", EVALUATED, "pass"),
        check("size_bytes", "min_improvement_pct", smaller, 50, "%", 1, "pass"),
        check("memory_bytes", "max", used, 190 * MIB, "bytes", 1, "pass"),
        check("throughput_rps @ 4", "max_regression_pct", slower, 3, "%", 6, outcome),
    )
    return VariantVerdict(variant=arm.name, digest=digest(arm.name), outcome=outcome, checks=checks)


def check(
    metric: str,
    rule: str,
    observed: Interval,
    limit: float,
    unit: str,
    samples: int,
    outcome: CheckOutcome,
) -> Check:
    """A check as the gate writes it."""
    return Check(
        metric=metric,
        rule=rule,
        observed=observed,
        limit=limit,
        unit=unit,
        samples=samples,
        outcome=outcome,
        why=f"the interval decides: {outcome}",
    )
