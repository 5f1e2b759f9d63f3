"""``trimton prune --blocks`` and what ``trimton inspect --prunable`` says of blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import trimton

FOLDER = Path(__file__).parents[2] / "model_repository" / "fashion_resnet"
MODEL = FOLDER / "1" / "model.onnx"


def test_inspect_lists_blocks_with_their_cost(tmp_path: Path) -> None:
    done = trimton("inspect", MODEL, "--prunable", "--json")
    blocks = json.loads(done.stdout)["prunable"]["blocks"]
    assert [block["name"] for block in blocks] == [f"blocks.{n}.sum" for n in (0, 1, 3, 5)]
    assert {block["kind"] for block in blocks} == {"residual block"}
    assert blocks[0]["macs"] == 2 * 32 * 32 * 9 * 28 * 28
    assert {block["damage"] for block in blocks} == {None}


def test_a_block_is_removed_as_inspect_ranks_it(tmp_path: Path) -> None:
    data = FOLDER / "calibration.npz"
    shown = trimton("inspect", MODEL, "--prunable", "--data", data, "--json")
    ranked = json.loads(shown.stdout)["prunable"]["blocks"]
    assert [block["damage"] for block in ranked] == sorted(block["damage"] for block in ranked)
    out = tmp_path / "out.onnx"
    done = trimton("prune", MODEL, out, "--blocks", 1, "--no-refit", "-d", data, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    (dropped,) = [step for step in report["steps"] if step["name"] == "drop-block"]
    assert dropped["detail"]["block"] == ranked[0]["name"]
    assert dropped["detail"]["damage"] == pytest.approx(ranked[0]["damage"])
    macs = report["macs"]
    assert macs["before"] - macs["after"] == ranked[0]["macs"]
    assert "statistics" in {step["name"] for step in report["steps"]}
    again = json.loads(trimton("inspect", out, "--prunable", "--json").stdout)
    assert len(again["prunable"]["blocks"]) == len(ranked) - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", MODEL, "{out}", "--blocks", "1"], "blocks 1: needs samples; give --data."),
        (["prune", MODEL, "{out}"], "give one of ratio, target macs and target speedup"),
        (["inspect", MODEL, "--data", "x.npz"], "--data: is of use with --prunable only"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, arguments: list[object], message: str) -> None:
    out = tmp_path / "out.onnx"
    done = trimton(*(out if argument == "{out}" else argument for argument in arguments))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not out.exists()
