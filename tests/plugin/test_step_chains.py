"""Steps that several variants begin with are done once, and kept for a run that comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimton.plugin.repository import path_digest
from trimton.plugin.stages import Json, StageStore
from trimton.plugin.step_chains import StepChains, Steps, shared_length
from trimton.plugin.steps.cast import CastStep
from trimton.plugin.steps.fuse import FuseStep
from trimton.plugin.steps.prune import PruneStep
from trimton.plugin.steps.step import TransformContext
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

MODEL = Path(__file__).parents[2] / "model_repository" / "fashion_resnet" / "1" / "model.onnx"
FUSE, PRUNE, HALF = FuseStep(), PruneStep(ratio=0.5, refit=False), CastStep()


def chains(directory: Path, **steps: Steps) -> StepChains:
    def key(some: Steps) -> Json:
        return {"steps": [step.model_dump() for step in some]}

    return StepChains(
        load_model(MODEL),
        steps,
        StageStore(directory),
        directory / "shared",
        key,
        lambda name: TransformContext(None, ()),
    )


def events(directory: Path) -> list[tuple[str, str]]:
    lines = (directory / "journal.jsonl").read_text().splitlines()
    return [(record["stage"], record["event"]) for record in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("others", "length"),
    [((), 0), (((HALF,),), 0), (((FUSE,), (FUSE, HALF)), 1), (((FUSE, PRUNE, HALF),), 2)],
)
def test_the_longest_common_beginning_is_shared(others: tuple[Steps, ...], length: int) -> None:
    assert shared_length((FUSE, PRUNE), others) == length


def test_shared_steps_are_done_once_and_give_the_same_model(tmp_path: Path) -> None:
    both = chains(tmp_path, pruned=(FUSE, PRUNE), half=(FUSE, PRUNE, HALF))
    both.make("pruned")
    made, reports = both.make("half")
    alone, its_reports = chains(tmp_path / "alone", half=(FUSE, PRUNE, HALF)).make("half")

    assert [event for _, event in events(tmp_path)] == ["started", "finished", "kept"]
    for name, model in (("made", made), ("alone", alone)):
        save_model(model, tmp_path / name / "model.onnx")
    assert path_digest(tmp_path / "made") == path_digest(tmp_path / "alone")
    assert [r["transform"] for r in reports] == [r["transform"] for r in its_reports]


def test_a_shared_part_of_shared_steps_is_done_once_too(tmp_path: Path) -> None:
    every = chains(tmp_path, fused=(FUSE,), pruned=(FUSE, PRUNE), half=(FUSE, PRUNE, HALF))
    for name in every.steps:
        every.make(name)
    finished = [stage for stage, event in events(tmp_path) if event == "finished"]
    assert len(finished) == len(set(finished)) == 2
