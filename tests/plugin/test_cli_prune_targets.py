"""``trimton prune`` with samples: targets of cost, and the refit in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``model.onnx``, two matrix products with 64 neurons between them, and ``data.npz``."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
      g (float[N,8] x, float[8,64] a, float[64,4] b) => (float[N,4] y) {
        h = MatMul(x, a)
        i = Relu(h)
        y = MatMul(i, b)
      }"""
    model = onnx.parser.parse_model(text)
    del model.graph.input[1:]
    rng = np.random.default_rng(0)
    for name, shape in (("a", (8, 64)), ("b", (64, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((256, 8)).astype(np.float32))
    return tmp_path


def test_a_target_of_macs_is_met_and_what_was_refitted_is_listed(folder: Path) -> None:
    done = trimton(
        "prune", folder / "model.onnx", folder / "out.onnx",
        "--target-macs", 0.5, "--data", folder / "data.npz", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["macs"]["after"] == report["macs"]["before"] / 2
    steps = {step["name"]: step for step in report["steps"]}
    assert steps["refit"]["detail"]["error"]["after"] < steps["refit"]["detail"]["error"]["before"]
    assert steps["allocate"]["detail"]["asked"] == 0.5


def test_no_refit_leaves_the_weights_that_stay_as_they_are(folder: Path) -> None:
    done = trimton(
        "prune", folder / "model.onnx", folder / "out.onnx",
        "--ratio", 0.5, "--no-refit", "--data", folder / "data.npz", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    names = {step["name"] for step in json.loads(done.stdout)["steps"]}
    assert "refit" not in names
    weights = {}
    for file in ("model.onnx", "out.onnx"):
        graph = onnx.load(folder / file).graph
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        weights[file] = {tuple(row) for row in arrays["b"]}
    assert len(weights["out.onnx"]) == 32
    assert weights["out.onnx"] < weights["model.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of ratio, target macs and target speedup"),
        (("--ratio", 0.5, "--target-macs", 0.5), "and only one"),
        (("--target-macs", 0.5), "needs samples; give --data"),
        (("--target-speedup", 0.5), "target speedup 0.5: must be more than 1"),
        (("--target-macs", 0.5, "--allocation", "uniform"), "allocation 'uniform': does not fit"),
    ],
)
def test_goals_that_do_not_fit_are_refused_in_one_sentence(
    folder: Path, options: tuple[object, ...], message: str
) -> None:
    done = trimton("prune", folder / "model.onnx", folder / "out.onnx", *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "out.onnx").exists()
