"""``trimton gate``: a finished run under a policy file, and what pipelines get from it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from windows import window

from trimton.core.errors import InputError
from trimton.perf.quality import measure_quality
from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import MemoryUse
from trimton.plugin.annotations import github_annotations
from trimton.plugin.cli.main import build_app
from trimton.plugin.gating import gate
from trimton.plugin.judging import Measurements, judge_measured
from trimton.plugin.policy import Policy
from trimton.plugin.policy_file import load_policy
from trimton.plugin.run_directory import verdict_file

LIMITS = {
    "agreement": {"min": 0.9},
    "throughput_rps": {"min_improvement_pct": 50, "concurrency": [1]},
    "size_bytes": {"max": 600},
}


def entry(name: str, size_bytes: int) -> VariantEntry:
    return VariantEntry(
        name=name,
        description="",
        digest=f"sha256:{name}",
        size_bytes=size_bytes,
        parameters=10,
        macs=10,
        nodes=1,
    )


def document(noise: float = 0.02) -> RunDocument:
    """A run whose variant is twice as fast, half as large, and agrees on 980 of 1,000 samples."""
    generator = np.random.default_rng(5)
    scores = np.eye(10)[np.arange(1000) % 10].astype(np.float32)
    changed = scores.copy()
    changed[:20] = np.roll(changed[:20], 1, axis=1)
    windows = tuple(
        window(name, number, throughput, 1000 / throughput)
        for number in range(6)
        for name, speed in (("baseline", 500.0), ("small", 1000.0))
        for throughput in (speed * float(np.exp(noise * generator.standard_normal())),)
    )
    memory = {"empty_server_pss_bytes": 10, "loaded_pss_bytes": 90, "load_seconds": 0.1}
    return judge_measured(
        "net",
        Measurements(
            variants=(entry("baseline", 1000), entry("small", 500)),
            quality=tuple(
                measure_quality(name, {"y": scores}, {"y": outputs})
                for name, outputs in (("baseline", scores), ("small", changed))
            ),
            memory=tuple(
                MemoryUse(
                    variant=name,
                    under_load_pss_bytes=used,
                    under_load_readings=(used - 1, used, used + 1),
                    **memory,
                )
                for name, used in (("baseline", 200), ("small", 100))
            ),
            windows=windows,
        ),
        Policy.model_validate({"candidate": "small", "limits": {"size_bytes": {"max": 10}}}),
        environment={"hardware": {}, "versions": {}, "server": {"name": "triton", "version": "2"}},
        settings={"seed": 1, "policy": {}},
        directory="runs/net",
    )


@pytest.fixture(scope="module")
def measured() -> RunDocument:
    return document()


@pytest.fixture
def run(tmp_path: Path, measured: RunDocument) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "measurements.json").write_text(measured.model_dump_json())
    (tmp_path / "run" / "verdict.json").write_text(measured.verdict.model_dump_json())
    return tmp_path / "run"


def policy(folder: Path, **content: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "limits": LIMITS} | content, sort_keys=False))
    return path


def outcomes(run: Path, path: Path, environment: str | None = None) -> dict[str, str]:
    judged = gate(run, load_policy(path), path, environment)
    (small,) = judged.verdict.variants
    return {"": small.outcome} | {check.metric: check.outcome for check in small.checks}


def test_the_same_measurements_are_judged_by_another_policy(run: Path, tmp_path: Path) -> None:
    assert json.loads((run / "verdict.json").read_text())["outcome"] == "fail"

    assert outcomes(run, policy(tmp_path)) == {
        "": "pass",
        "agreement": "pass",
        "throughput_rps @ 1": "pass",
        "size_bytes": "pass",
    }
    assert verdict_file(run) == run / "gate" / "verdict.json"
    assert json.loads((run / "gate" / "verdict.json").read_text())["outcome"] == "pass"
    assert json.loads((run / "verdict.json").read_text())["outcome"] == "fail"


def test_more_confidence_asks_for_more(run: Path, tmp_path: Path) -> None:
    limits = {"agreement": {"min": 0.97}, "throughput_rps": {"min_improvement_pct": 93}}
    results = [
        outcomes(run, policy(tmp_path, limits=limits, confidence=confidence))
        for confidence in (0.5, 0.95, 0.9999)
    ]

    assert [r["agreement"] for r in results] == ["pass", "inconclusive", "inconclusive"]
    assert [r["throughput_rps @ 1"] for r in results] == ["pass", "pass", "inconclusive"]


def test_intervals_widen_with_confidence_around_the_same_value(run: Path, tmp_path: Path) -> None:
    limits = {
        "agreement": {"min": 0.5},
        "throughput_rps": {"min": 1, "min_improvement_pct": 1},
        "latency_p95_ms": {"max": 100},
    }
    path = policy(tmp_path, limits=limits)
    checks = {}
    for confidence in (0.8, 0.95, 0.99):
        path = policy(tmp_path, limits=limits, confidence=confidence)
        (small,) = gate(run, load_policy(path), path).verdict.variants
        checks[confidence] = small.checks

    for narrow, usual, wide in zip(checks[0.8], checks[0.95], checks[0.99], strict=True):
        assert narrow.observed.value == usual.observed.value == wide.observed.value
        for inner, outer in ((narrow.observed, usual.observed), (usual.observed, wide.observed)):
            assert inner.low is not None
            assert outer.low is not None
            assert inner.high is not None
            assert outer.high is not None
            assert outer.low < inner.low <= inner.high < outer.high
        assert [c.confidence for c in (narrow, usual, wide)] == [0.8, 0.95, 0.99]
        assert wide.why.endswith("(99 % confidence)")
        assert "confidence" not in usual.why


def test_too_few_samples_are_inconclusive_but_a_size_is_exact(run: Path, tmp_path: Path) -> None:
    path = policy(tmp_path, min_samples=2000)
    (small,) = gate(run, load_policy(path), path).verdict.variants

    assert {c.metric: c.outcome for c in small.checks} == {
        "agreement": "inconclusive",
        "throughput_rps @ 1": "inconclusive",
        "size_bytes": "pass",
    }
    assert small.checks[0].why == "1000 samples, but the policy asks for 2000"


@pytest.mark.parametrize("counts_as", ["inconclusive", "fail", "pass"])
def test_the_policy_says_what_inconclusive_counts_as(
    run: Path, tmp_path: Path, counts_as: str
) -> None:
    limits = {"agreement": {"min": 0.98, "inconclusive": counts_as}}

    assert outcomes(run, policy(tmp_path, limits=limits))[""] == counts_as


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"energy_mj_per_inference": {"max_regression_pct": 5}}, "counts no energy"),
        ({"latency_p99_ms": {"max": 5, "concurrency": [7]}}, "did not measure this level"),
        ({"accuracy": {"max_drop": 0.01}}, "no labels"),
    ],
)
def test_what_the_run_did_not_measure_never_passes(
    run: Path, tmp_path: Path, limit: dict[str, Any], words: str
) -> None:
    path = policy(tmp_path, limits=limit)
    (small,) = gate(run, load_policy(path), path).verdict.variants

    assert small.outcome == "inconclusive"
    assert words in small.checks[0].why


def test_models_and_environments_change_limits_key_by_key(run: Path, tmp_path: Path) -> None:
    path = policy(
        tmp_path,
        models={"n*": {"limits": {"size_bytes": {"max": 400}}}, "other": {"limits": {}}},
        environments={
            "edge": {"limits": {"size_bytes": {"max": 550}, "agreement": None}},
            "strict": {"limits": {"throughput_rps": {"min_improvement_pct": 400}}},
        },
    )

    assert outcomes(run, path)["size_bytes"] == "fail"
    assert outcomes(run, path, "edge") == {
        "": "pass",
        "throughput_rps @ 1": "pass",
        "size_bytes": "pass",
    }
    assert outcomes(run, path, "strict")["throughput_rps @ 1"] == "fail"
    with pytest.raises(InputError, match=r"no environment 'none' \(environments: edge, strict\)"):
        outcomes(run, path, "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"limits": {"speed": {"max": 1}}}, "limits.speed"),
        ({"limits": {"agreement": {"min": 1.5}}}, "line 3: limits.agreement: min 1.5 is no share"),
        ({"limits": {"size_bytes": {"min": 5, "max": 4}}}, "min 5 is above max 4"),
        ({"limits": {"size_bytes": {"max_drop": 4}}}, "max_drop is for accuracy only"),
        ({"limits": {}}, "limits"),
        ({"confidence": 1.0}, "confidence"),
        ({"version": 2}, "version"),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"models": {"n*": {"limits": {"agreement": {"min": 7}}}}}, "models.n*"),
        ({"environments": {"edge": {"limits": {"size_bytes": {"min": 900}}}}}, "environments.edge"),
        ({"environments": {"edge": {"confidence": 3.0}}}, "environments.edge.confidence"),
        ({"environments": {"e": {"limits": dict.fromkeys(LIMITS)}}}, "environments.e.limits"),
    ],
)
def test_a_policy_checks_itself(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    path = policy(tmp_path, **content)

    with pytest.raises(InputError) as error:
        load_policy(path)

    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: line ")


def test_a_candidate_that_the_run_did_not_make_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny' is no variant of .* \(variants: small\)"):
        outcomes(run, policy(tmp_path, candidate="tiny"))
    assert not (run / "gate").exists()


def test_junit_has_one_testcase_for_each_check(run: Path, tmp_path: Path) -> None:
    limits = {
        "agreement": {"min": 0.98},
        "size_bytes": {"max": 400, "min_improvement_pct": 10},
    }
    outcomes(run, policy(tmp_path, limits=limits))

    suite = ET.parse(run / "gate" / "junit.xml").getroot()[0]

    assert {k: suite.get(k) for k in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    assert [[child.tag for child in case] for case in suite] == [["skipped"], ["failure"], []]
    assert "asked: max 400 bytes" in str(suite[1][0].get("message"))


def test_annotations_are_one_escaped_line_for_each_check_that_does_not_hold(
    run: Path, tmp_path: Path
) -> None:
    path = policy(tmp_path, limits={"size_bytes": {"min_improvement_pct": 90}})
    verdict = gate(run, load_policy(path), path).verdict

    (line,) = github_annotations(verdict)

    assert line.startswith("::error title=net%3A small::size_bytes: 50 %25")
    assert "\n" not in line


def test_the_command_ends_with_the_outcome_and_feeds_the_job(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    for limits, code in (
        (LIMITS, 0),
        ({"size_bytes": {"max": 1}}, 1),
        ({"agreement": {"min": 0.98}}, 3),
    ):
        path = policy(tmp_path, limits=limits)
        with pytest.raises(SystemExit) as ended:
            build_app()(args=["gate", str(run), "--policy", str(path), "--json"])
        assert ended.value.code == code
    printed = capsys.readouterr()
    decoder = json.JSONDecoder()
    first, _ = decoder.raw_decode(printed.out)
    assert first["outcome"] == "pass"
    assert printed.err.count("::error ") == 1
    assert printed.err.count("::warning ") == 1
    assert (tmp_path / "summary").read_text().count("\n# ") == 2


def test_the_command_checks_a_policy_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_app()(args=["gate", "--check", "--policy", str(policy(tmp_path)), "--json"])

    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["limits"] == list(LIMITS)


def test_the_schema_beside_the_module_is_current() -> None:
    from trimton.plugin import policy as module

    schema = Path(module.__file__).with_name("policy.schema.json").read_text()
    assert schema == module.policy_schema()
