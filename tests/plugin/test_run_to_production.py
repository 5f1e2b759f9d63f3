"""The whole way: a run measured on a real Triton, gated, and promoted into production."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from trimton.plugin.gating import gate
from trimton.plugin.pipeline import run_recipe
from trimton.plugin.policy_file import load_policy
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.repository import path_digest
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

NAME = "fashion_resnet"
MODEL = Path(__file__).parents[2] / "model_repository" / NAME

pytestmark = pytest.mark.server


def write(path: Path, content: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_what_a_run_measured_is_gated_promoted_served_and_rolled_back(
    tmp_path: Path, installation: Installation
) -> None:
    production = tmp_path / "production"
    for part in ("config.pbtxt", "1"):
        source, target = MODEL / part, production / NAME / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    recipe = write(
        tmp_path / "recipe.yaml",
        {
            "version": 1,
            "model": {"repository": "production", "name": NAME},
            "data": {"evaluation": str(MODEL / "evaluation.npz"), "evaluation_samples_max": 128},
            "variants": {"fused": ["fuse"]},
            "load": {"concurrency": [1], "rounds": 2, "window_s": 0.2, "memory_servers": 1},
            "policy": {"candidate": "fused", "limits": {"size_bytes": {"min_improvement_pct": 90}}},
        },
    )
    policy = write(tmp_path / "policy.yaml", {"version": 1, "limits": {"agreement": {"min": 0.9}}})
    run = tmp_path / "run"
    assert run_recipe(recipe, run).verdict.outcome == "fail"
    assert gate(run, load_policy(policy), policy).verdict.outcome == "pass"

    with TritonServer.start(
        production, load=[NAME], log_file=tmp_path / "log", installation=installation
    ) as server:
        servers = [RunningServer(server.http_url)]
        done = promote(run, (), PromotionTerms(servers=servers))
        back = roll_back([production], NAME, RollbackTerms(servers=servers))

    assert done.after == (2,)
    assert done.servers[0].difference is not None
    assert done.servers[0].difference < 1e-3
    assert back.after == (1,)
    fused = json.loads((run / "verdict.json").read_text())["candidate_digest"]
    assert path_digest(production / NAME / "2") == fused
