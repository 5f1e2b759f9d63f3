"""What the verdicts say of a version: the newest that counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trimton.core.errors import InfrastructureError
from trimton.plugin.hooks.rulings import Judge
from trimton.plugin.hooks.verdicts import VerdictBook
from trimton.plugin.repository import Repository, path_digest

if TYPE_CHECKING:
    from tests.plugin.hooks.conftest import Runs

BASE, GOOD = f"sha256:{1:064x}", f"sha256:{2:064x}"


def judge(runs: Runs, **settings: object) -> Judge:
    return Judge(VerdictBook(runs.folder), **settings)  # type: ignore[arg-type]


def test_the_newest_verdict_on_the_bytes_counts(runs: Runs) -> None:
    runs.judge("pass", GOOD)
    asked = judge(runs)
    assert asked.rule("net", GOOD).outcome == "pass"

    runs.judge("fail", GOOD)
    ruling = asked.rule("net", GOOD)
    assert (ruling.outcome, ruling.run) == ("fail", "net-1")
    assert "latency_p99_ms" in ruling.reason


def test_what_was_never_judged_is_unknown(runs: Runs) -> None:
    runs.judge("pass", GOOD, model="other")

    assert judge(runs).rule("net", GOOD).outcome == "unknown"
    assert judge(runs).rule("other", "sha256:" + "f" * 64).outcome == "unknown"


def test_the_baseline_that_others_were_compared_with_passes(runs: Runs) -> None:
    runs.judge("fail", GOOD, baseline=BASE)

    ruling = judge(runs).rule("net", BASE)
    assert (ruling.outcome, ruling.role) == ("pass", "baseline")


def test_old_verdicts_and_other_policies_do_not_count(runs: Runs) -> None:
    runs.judge("pass", GOOD, age_days=31)
    assert judge(runs).rule("net", GOOD).outcome == "unknown"
    assert judge(runs, max_age_days=40.0).rule("net", GOOD).outcome == "pass"

    policy = judge(runs, max_age_days=40.0).rule("net", GOOD).policy
    assert judge(runs, max_age_days=40.0, policy=policy).rule("net", GOOD).outcome == "pass"
    assert judge(runs, max_age_days=40.0, policy="0" * 64).rule("net", GOOD).outcome == "unknown"


def test_the_verdict_of_a_later_gate_replaces_the_runs_own(runs: Runs) -> None:
    run = runs.judge("pass", GOOD)
    again = runs.judge("fail", GOOD)
    (run / "gate").mkdir()
    (again / "verdict.json").rename(run / "gate" / "verdict.json")

    assert judge(runs).rule("net", GOOD).outcome == "fail"


def test_what_is_no_verdict_is_passed_over(runs: Runs, tmp_path: Path) -> None:
    broken = runs.judge("pass", GOOD)
    (broken / "verdict.json").write_text('{"model": "net"')
    outside = runs.judge("pass", GOOD)
    outside.rename(tmp_path / "outside")
    (runs.folder / "linked").symlink_to(tmp_path / "outside")
    linked = runs.folder / "linked-file"
    linked.mkdir()
    (linked / "verdict.json").symlink_to(tmp_path / "outside" / "verdict.json")

    assert judge(runs).rule("net", GOOD).outcome == "unknown"


def test_a_number_is_a_version_of_the_repository_and_stands_for_its_bytes(
    runs: Runs, tmp_path: Path
) -> None:
    version = tmp_path / "models" / "net" / "2"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights")
    runs.judge("pass", path_digest(version))
    asked = judge(runs, repository=Repository(tmp_path / "models"))

    assert asked.rule("net", "2").outcome == "pass"
    (version / "model.onnx").write_bytes(b"wEights")
    assert asked.rule("net", "2").outcome == "unknown"
    assert "no version 3" in asked.rule("net", "3").reason
    assert asked.rule("..", "2").outcome == "unknown"
    assert "by digest" in judge(runs).rule("net", "2").reason


def test_runs_that_cannot_be_read_are_no_verdict(runs: Runs) -> None:
    asked = judge(runs)
    runs.folder.rmdir()

    with pytest.raises(InfrastructureError, match="cannot be read"):
        asked.rule("net", GOOD)
