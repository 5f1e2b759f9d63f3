"""``trimton factorise`` and ``trimton sparsify`` as a user meets them, and their recipe steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import InputError
from trimton.plugin.recipe_file import parse_recipe
from trimton.plugin.samples import Samples
from trimton.plugin.steps import FactoriseStep, SparsifyStep
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.variants import apply_steps
from trimton.transforms.graph.load import load_model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Conv (32 channels), Relu, Conv (2 channels, the output)."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Conv", ["i", "b"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 6, 6])],
        [
            numpy_helper.from_array(normal(32, 16, 3, 3), "a"),
            numpy_helper.from_array(normal(2, 32, 1, 1), "b"),
        ],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    np.savez(tmp_path / "data.npz", x=normal(32, 16, 8, 8, seed=1))
    return path


def test_factorise_reports_for_machines(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out.onnx"
    done = trimton("factorise", model, out, "--ratio", 0.5, "--no-measure", "--json",
                   "--data", tmp_path / "data.npz")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["transform"] == "factorise"
    (step,) = (step for step in report["steps"] if step["name"] == "factorise")
    assert step["detail"]["rank"] == {"before": 32, "after": 8}
    assert step["detail"]["macs"]["after"] == 36 * 8 * (144 + 32)
    names = [node.name for node in onnx.load(out).graph.node]
    assert names[:2] == ["first_components", "first"]
    (skipped,) = (one for one in report["skipped"] if one["what"] == "last")
    assert skipped["why"] == "no rank that is a multiple of 8 saves multiply-accumulates"


def test_sparsify_tells_people_what_it_is_worth(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out.onnx"
    data = tmp_path / "data.npz"
    done = trimton("sparsify", model, out, "--pattern", "2:4", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "first: 50.0% of its weights are zero (2:4)" in done.stdout
    assert "packed as 2:4: 53% of the bytes" in done.stdout
    assert "ONNX Runtime's CPU kernels multiply by zeros like by any number" in done.stdout
    kernel = numpy_helper.to_array(onnx.load(out).graph.initializer[0])
    assert ((kernel != 0).reshape(32, 4, 4, 3, 3).sum(axis=2) == 2).all()


WRONG = {
    "no goal": (["factorise", "--data", "D"], "give one of ratio, energy, target macs"),
    "ratio": (["factorise", "--data", "D", "--ratio", "2"], "ratio 2: must lie between 0 and 1"),
    "exclusion of nothing": (
        ["factorise", "--data", "D", "--ratio", "0.5", "--exclude", "nowhere"],
        "exclusion 'nowhere': excludes no layer",
    ),
    "no data file": (["factorise", "--data", "no.npz", "--ratio", "0.5"], "no.npz: no such file"),
    "sparsify without goal": (["sparsify"], "give one of pattern and ratio"),
    "pattern": (["sparsify", "--pattern", "4:2"], "pattern '4:2': must be N:M with N below M"),
    "sparsify without data": (["sparsify", "--pattern", "2:4"], "needs samples; give --data"),
    "no layer": (
        ["sparsify", "--pattern", "8:64", "--method", "magnitude"],
        "no layer can be made sparse (first: its input channels (16) are no multiple of 64",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_one_sentence_and_writes_nothing(
    tmp_path: Path, model: Path, wrong: str
) -> None:
    (name, *options), expected = WRONG[wrong]
    data = str(tmp_path / "data.npz")
    given = [data if option == "D" else option for option in options]
    done = trimton(name, model, tmp_path / "out.onnx", *given)
    assert done.returncode == 2
    assert done.stderr.startswith("trimton: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_recipe_steps_make_the_variant(model: Path) -> None:
    samples = Samples("data", {"x": normal(32, 16, 8, 8, seed=1)})
    steps = [
        FactoriseStep(ratio=0.5, measure=False),
        SparsifyStep(pattern="2:4", exclude=["last"]),
    ]
    context = TransformContext(samples, ())
    made, reports = apply_steps(load_model(model), steps, context, "variants.small")
    assert [report.transform for report in reports] == ["factorise", "sparsify"]
    assert len(made.graph) == 4


RECIPE = """version: 1
model: {{repository: r, name: m}}
data: {{evaluation: e.npz}}
variants:
  small: [{step}]
policy: {{candidate: small, limits: {{accuracy: {{max_drop: 0.01}}}}}}
"""
WRONG_STEPS = {
    "sparsify: {pattern: 2:4}": 'pattern: must stand in quotes, such as "2:4"',
    "sparsify: {ratio: 0.5}": "data.calibration: is missing, but variant 'small' needs it",
    "factorise: {ratio: 0.5}": "data.calibration: is missing, but variant 'small' needs it",
    "factorise: {energy: 3.0}": "energy 3: must lie between 0 and 1",
}


@pytest.mark.parametrize("step", WRONG_STEPS)
def test_a_wrong_step_is_told_with_its_line(step: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(RECIPE.format(step=step), Path("recipe.yaml"))
    assert WRONG_STEPS[step] in str(caught.value)


def test_zeros_by_magnitude_need_no_samples() -> None:
    step = "sparsify: {ratio: 0.5, method: magnitude}"
    assert parse_recipe(RECIPE.format(step=step), Path("recipe.yaml")).variants["small"].steps
