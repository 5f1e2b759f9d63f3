"""A canary of a model that the agent guards: each version in service is proven, at every moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trimton.plugin.promotion.confirm import RolledBackError
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.proof import check_model, new_key, prove_version, read_key
from trimton.plugin.repository import Repository
from trimton.plugin.rollout.canary import CanaryResult, Step
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.trial import CanaryError, Trial

PASSED = CanaryResult((Step(100.0, 10.0, "pass", "", 1.0, 8, 100, 1.0),), 1.0)
FAILED = CanaryResult((Step(5.0, 1.0, "fail", "", 2.0, 8, 100, 1.0),), 1.0)


@pytest.mark.parametrize(
    ("result", "served"), [(PASSED, "version 2"), (FAILED, "version 1")], ids=["pass", "fail"]
)
def test_the_agent_is_content_before_during_and_after(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_repository: Callable[..., None],
    write_run: Callable[[Path, Path, int], Path],
    result: CanaryResult,
    served: str,
) -> None:
    repository, key_file = tmp_path / "models", tmp_path / "proof.key"
    new_key(key_file)
    parameter = f'parameters {{ key: "key_file" value: "{key_file}" }}'
    write_repository(
        repository, f'model_repository_agents {{ agents [ {{ name: "trimton" {parameter} }} ] }}'
    )
    run = write_run(tmp_path / "run", repository, 4)
    key = read_key(key_file)
    prove_version(run, Repository(repository).model("net"), 1, key)
    during: list[str] = []

    def answer() -> str:
        return check_model(Repository(repository).model("net"))

    def judge(self: Trial, model: str, versions: tuple[int, int], check: object) -> CanaryResult:
        during.append(answer())
        assert versions == (3, 2)
        if result.outcome != "pass":
            raise CanaryError(result)
        return result

    # No server is asked here: what is on the disk is looked at.
    monkeypatch.setattr(Trial, "_try", judge)
    monkeypatch.setattr(Trial, "require_server", lambda self, check: None)
    terms = PromotionTerms(key=key, trial=Trial(CanaryPlan((100.0,))))
    if result.outcome == "pass":
        promote(run, [repository], terms)
    else:
        with pytest.raises(RolledBackError, match="put back into service"):
            promote(run, [repository], terms)

    assert during == ["allow: proven: version 1, 2, 3"]
    assert answer() == f"allow: proven: {served}"
    assert not list((repository / "net").glob("3*"))
