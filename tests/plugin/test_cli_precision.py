"""``quantize-weights``, ``quantize-dynamic`` and ``cast`` as a user meets them, and in recipes."""

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
from trimton.plugin.steps import CastStep, QuantizeDynamicStep, QuantizeWeightsStep
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.variants import apply_steps
from trimton.transforms.graph.load import load_model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A table of 100 rows, a large product, Relu, a small product."""
    nodes = [
        helper.make_node("Gather", ["t", "i"], ["e"], name="table"),
        helper.make_node("MatMul", ["e", "a"], ["h"], name="large"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="small"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 4])],
        [
            numpy_helper.from_array(normal(100, 64), "t"),
            numpy_helper.from_array(normal(64, 96, seed=1), "a"),
            numpy_helper.from_array(normal(96, 4, seed=2), "b"),
        ],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    np.savez(tmp_path / "data.npz", i=np.arange(300).reshape(100, 3) % 100)
    return path


DONE = {
    "quantize-weights": (
        ["--bits", "8", "--block", "64", "--no-symmetric"],
        ["GatherBlockQuantized", "MatMulNBits", "Relu", "MatMul"],
        {"small": "its weight is small (fewer than 4096 numbers)"},
    ),
    "quantize-dynamic": (
        ["--target", "avx2"],
        [
            *("GatherBlockQuantized", "DynamicQuantizeLinear", "MatMulInteger", "Cast"),
            *("Mul", "Mul", "Relu", "MatMul"),
        ],
        {"small": "its weight is small (fewer than 4096 numbers)"},
    ),
    "cast": (
        ["--target", "gpu"],
        ["Gather", "MatMul", "Relu", "MatMul", "Cast"],
        {},
    ),
}


@pytest.mark.parametrize("command", DONE)
def test_a_model_is_made_and_accounted_for(tmp_path: Path, model: Path, command: str) -> None:
    options, operators, reasons = DONE[command]
    out = tmp_path / "out.onnx"

    done = trimton(command, model, out, "--data", tmp_path / "data.npz", "--json", *options)

    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["transform"] == command.replace("-", "_")
    assert report["size_bytes"]["after"] == out.stat().st_size
    assert report["size_bytes"]["after"] < 0.6 * report["size_bytes"]["before"]
    assert 0 < report["max_relative_difference"] < 0.1
    assert [node.op_type for node in onnx.load(out).graph.node] == operators
    skipped = {one["what"]: one["why"] for one in report["skipped"]}
    assert reasons.items() <= skipped.items()


def test_cast_tells_people_what_it_is_worth(tmp_path: Path, model: Path) -> None:
    done = trimton("cast", model, tmp_path / "out.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert "weights stored in float16, 3 of them cast back to float32 at loading" in done.stdout
    assert "the file is half as large, and the model as fast" in done.stdout


WRONG = {
    "bits": (["quantize-weights", "--bits", "3"], "bits 3: is not known; choose 4, 8"),
    "block": (["quantize-weights", "--block", "48"], "block 48: is not known; choose 16, 32"),
    "exclusion": (["quantize-weights", "--exclude", "no"], "exclusion 'no': no node has this name"),
    "data": (["quantize-weights", "--data", "no.npz"], "no.npz: no such file"),
    "target": (["quantize-dynamic", "--target", "vax"], "unknown target 'vax'"),
    "no kernels": (["quantize-dynamic", "--target", "tensorrt"], "has no kernels with ranges"),
    "dynamic exclusion": (
        ["quantize-dynamic", "--exclude", "no"],
        "exclusion 'no': no node has this name",
    ),
    "cast exclusion": (["cast", "--exclude", "no"], "exclusion 'no': no node has this name"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_one_sentence_and_writes_nothing(
    tmp_path: Path, model: Path, wrong: str
) -> None:
    (command, *options), expected = WRONG[wrong]
    done = trimton(command, model, tmp_path / "out.onnx", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("trimton: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("command", ["quantize-weights", "quantize-dynamic", "cast"])
def test_a_model_that_was_quantised_before_is_refused(
    tmp_path: Path, model: Path, command: str
) -> None:
    small = tmp_path / "small.onnx"
    assert trimton("quantize-weights", model, small).returncode == 0

    done = trimton(command, small, tmp_path / "out.onnx")

    assert done.returncode == 2
    assert done.stderr.startswith(f"trimton: {small}: the model is quantised already")
    assert not (tmp_path / "out.onnx").exists()


RECIPE = """\
version: 1
model: {repository: models, name: net}
data: {evaluation: evaluation.npz}
variants:
  blocks:
    - quantize_weights: {bits: 4, block: 16, compute: float32, exclude: [small]}
  dynamic: [quantize_dynamic]
  half:
    - cast: {to: bfloat16, target: cpu}
policy:
  candidate: blocks
  limits:
    agreement: {min: 0.9}
"""


def test_recipe_steps_make_the_variants_without_samples(model: Path) -> None:
    recipe = parse_recipe(RECIPE, Path("recipe.yaml"))
    steps = {name: variant.steps for name, variant in recipe.variants.items()}
    assert steps == {
        "blocks": [
            QuantizeWeightsStep(bits=4, block=16, compute="float32", exclude=["small"]),
        ],
        "dynamic": [QuantizeDynamicStep()],
        "half": [CastStep(to="bfloat16", target="cpu")],
    }
    context = TransformContext(None, instruction_sets=("avx512_vnni",))

    for name, some in steps.items():
        made, (report,) = apply_steps(load_model(model), some, context, name)
        assert report.changed
        assert report.after.size_bytes < 0.6 * report.before.size_bytes
        assert [value.name for value in made.graph.outputs] == ["y"]


def test_a_second_step_on_integers_is_refused_by_name(model: Path) -> None:
    samples = Samples("data", {"i": np.arange(30).reshape(10, 3)})
    context = TransformContext(samples, instruction_sets=())
    steps = [QuantizeDynamicStep(), QuantizeWeightsStep()]
    with pytest.raises(InputError, match="twice: quantize_weights: the model is quantised already"):
        apply_steps(load_model(model), steps, context, "twice")
