"""The main job on a real Triton: what it leaves behind, how it judges, how it resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.report.document import RunDocument
from trimton.perf.verdict import Verdict
from trimton.plugin.pipeline import run_recipe
from trimton.plugin.repository import read_config
from trimton.plugin.run_directory import new_run_directory, unfinished_run
from trimton.plugin.server.installation import Installation

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "model_repository" / "fashion_resnet"
TRIMTON = (sys.executable, "-m", "trimton.plugin.cli.main")


def recipe(**changes: Any) -> dict[str, Any]:
    """A short run of the example model; ``changes`` replace whole sections."""
    return {
        "version": 1,
        "seed": 3,
        "model": {"repository": str(MODEL.parent), "name": "fashion_resnet"},
        "data": {
            "calibration": str(MODEL / "calibration.npz"),
            "evaluation": str(MODEL / "evaluation.npz"),
            "evaluation_samples_max": 256,
        },
        "variants": {"fused": ["fuse"], "int8": ["fuse", "quantize"]},
        "load": {
            "concurrency": [1, 2],
            "rounds": 2,
            "window_s": 0.2,
            "warmup_s": 0.05,
            "memory_servers": 2,
        },
        "policy": {
            "candidate": "int8",
            "limits": {"size_bytes": {"min_improvement_pct": 60}, "agreement": {"min": 0.5}},
        },
    } | changes


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def events(directory: Path, kind: str) -> list[str]:
    lines = (directory / "journal.jsonl").read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["stage"] for event in found if event["event"] == kind]


@pytest.fixture(scope="module")
def finished(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, RunDocument]:
    """Recipe, run directory and document of one finished run."""
    folder = tmp_path_factory.mktemp("run")
    path = write(folder, recipe())
    return path, folder / "run", run_recipe(path, folder / "run")


def test_a_run_measures_every_variant_and_passes_what_holds(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    _, _, document = finished

    assert document.verdict.outcome == "pass"
    assert [v.name for v in document.variants] == ["baseline", "fused", "int8"]
    assert len(document.windows) == 3 * 2 * 2
    assert {(v.variant, v.concurrency) for v in document.levels} == {
        (name, level) for name in ("baseline", "fused", "int8") for level in (1, 2)
    }
    assert all(window.requests > 0 and not window.errors for window in document.windows)
    assert all(len(use.under_load_readings) == 2 for use in document.memory)
    assert document.environment["server"]["name"] == "triton"


def test_the_original_agrees_with_itself_and_fusing_changes_no_answer(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    quality = {q.variant: q for q in finished[2].quality}

    assert quality["baseline"].agreement.value == 1
    assert quality["baseline"].sqnr_db is None
    assert quality["fused"].agreement.value == 1
    assert quality["fused"].largest_difference < 1e-3
    assert quality["int8"].sqnr_db is not None
    assert quality["int8"].sqnr_db > 10
    accuracy = quality["baseline"].accuracy
    assert accuracy is not None
    assert accuracy.value > 0.9


def test_the_size_that_is_judged_is_the_size_on_disk(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    _, directory, document = finished

    sizes = {v.name: v.size_bytes for v in document.variants}
    for name, size in sizes.items():
        assert (directory / "variants" / name / "model.onnx").stat().st_size == size
    check = document.verdict.variants[1].checks[0]
    assert check.observed.value == pytest.approx(100 * (1 - sizes["int8"] / sizes["baseline"]))


def test_the_run_directory_holds_readable_results(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    path, directory, document = finished

    verdict = Verdict.model_validate_json((directory / "verdict.json").read_text())
    assert verdict == document.verdict
    stored = RunDocument.model_validate_json((directory / "measurements.json").read_text())
    assert stored == document
    assert (directory / "recipe.yaml").read_text() == path.read_text()
    assert "int8" in (directory / "report.md").read_text()
    assert "<html" in (directory / "report.html").read_text()


def test_all_variants_are_staged_under_the_baselines_configuration(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    staging = finished[1] / "staging"

    configs = [read_config(path) for path in sorted(staging.glob("*/config.pbtxt"))]
    assert [c.name for c in configs] == [
        f"fashion_resnet.{n}" for n in ("baseline", "fused", "int8")
    ]
    for config in configs:
        assert config.max_batch_size == 32
        config.ClearField("name")
    assert configs[0] == configs[1] == configs[2]
    assert not (MODEL / "2").exists()


def test_a_finished_run_repeats_nothing_and_judges_the_same(
    finished: tuple[Path, Path, RunDocument],
) -> None:
    path, directory, document = finished
    started = events(directory, "started")

    again = run_recipe(path, directory)

    assert events(directory, "started") == started
    assert again.windows == document.windows
    assert again.verdict.variants == document.verdict.variants


def test_another_policy_judges_again_without_measuring_again(
    finished: tuple[Path, Path, RunDocument], tmp_path: Path
) -> None:
    _, directory, _ = finished
    started = events(directory, "started")
    policy = {"candidate": "int8", "limits": {"size_bytes": {"min_improvement_pct": 99}}}

    document = run_recipe(write(tmp_path, recipe(policy=policy)), directory)

    assert document.verdict.outcome == "fail"
    assert events(directory, "started") == started


def test_a_killed_run_resumes_with_the_same_variants_and_repeats_no_finished_stage(
    finished: tuple[Path, Path, RunDocument], tmp_path: Path
) -> None:
    path = write(tmp_path, recipe())
    directory = tmp_path / "run"
    command = [*TRIMTON, "run", str(path), "--run-dir", str(directory), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    windows = directory / "windows"
    _wait_for(lambda: any(file.read_text() for file in windows.glob("*.jsonl")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = events(directory, "finished")
    assert "load" not in before

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert set(events(directory, "kept")) == set(before)
    verdict = Verdict.model_validate_json(result.stdout)
    assert verdict.candidate_digest == finished[2].verdict.candidate_digest
    assert verdict.baseline_digest == finished[2].verdict.baseline_digest
    assert _quality_checks(verdict) == _quality_checks(finished[2].verdict)


def test_a_server_that_dies_under_load_ends_the_run_with_one_sentence(
    installation: Installation, tmp_path: Path
) -> None:
    variants = {"variants": {"fused": ["fuse"]}}
    load = {"concurrency": [1], "rounds": 2, "window_s": 20.0, "memory_servers": 1}
    policy = {"candidate": "fused", "limits": {"agreement": {"min": 0.9}}}
    path = write(tmp_path, recipe(**variants, load=load, policy=policy))
    process = subprocess.Popen(
        [*TRIMTON, "run", str(path), "--run-dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "logs" / "load.log"
    _wait_for(lambda: log.exists() and "Started HTTPService" in log.read_text())
    time.sleep(0.5)

    for child in psutil.Process(process.pid).children(recursive=True):
        if child.name().startswith("tritonserver"):
            os.kill(child.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=60)

    assert process.returncode == InfrastructureError.exit_code
    assert out == ""
    assert err.startswith("trimton: ")
    assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "run" / "verdict.json").exists()


def test_a_step_that_changes_nothing_is_an_error(
    installation: Installation, tmp_path: Path
) -> None:
    content = recipe(
        variants={"twice": ["fuse", "fuse"]},
        policy={"candidate": "twice", "limits": {"agreement": {"min": 0.9}}},
    )

    with pytest.raises(InputError, match="variant 'twice': fuse changes nothing"):
        run_recipe(write(tmp_path, content), tmp_path / "run")


def test_run_directories_have_names_of_their_own(tmp_path: Path) -> None:
    first = new_run_directory(tmp_path, "net")
    first.mkdir()
    (first / "recipe.yaml").touch()

    assert new_run_directory(tmp_path, "net") != first
    assert unfinished_run(tmp_path, "net") == first
    assert unfinished_run(tmp_path, "other") is None
    (first / "verdict.json").touch()
    assert unfinished_run(tmp_path, "net") is None


def _quality_checks(verdict: Verdict) -> list[Any]:
    variant = next(v for v in verdict.variants if v.variant == verdict.candidate)
    return [check for check in variant.checks if check.metric in ("agreement", "size_bytes")]


def _wait_for(condition: Any, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
