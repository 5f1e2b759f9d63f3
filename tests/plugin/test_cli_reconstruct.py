"""``trimton reconstruct`` and the recipe's step, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import InputError
from trimton.plugin.samples import Samples
from trimton.plugin.step_chains import shared_length
from trimton.plugin.steps.fuse import FuseStep
from trimton.plugin.steps.quantize import QuantizeStep
from trimton.plugin.steps.reconstruct import ReconstructStep
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.variants import apply_steps
from trimton.transforms.graph.load import load_model


def trimton(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trimton.plugin.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``float.onnx``, ``int8.onnx`` made of it, and samples."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((6, 16)), "b": rng.standard_normal((16, 4))}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="cut"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "float.onnx")
    x = rng.standard_normal((200, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    np.savez(tmp_path / "wide.npz", x=np.ones((20, 7), np.float32))
    done = trimton(
        *("quantize", tmp_path / "float.onnx", tmp_path / "int8.onnx"),
        *("--data", tmp_path / "data.npz", "--target", "avx512_vnni"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_tunes_and_reports_for_machines(folder: Path) -> None:
    done = trimton(
        *("reconstruct", folder / "float.onnx", folder / "int8.onnx", folder / "out.onnx"),
        *("--data", folder / "data.npz", "--steps", 100, "--threads", 1, "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    whole, *units = report["steps"]

    assert report["transform"] == "reconstruct"
    assert report["changed"] == (
        whole["detail"]["error"]["after"] < whole["detail"]["error"]["before"]
    )
    assert {layer for unit in units for layer in unit["detail"]["layers"]} == {"first", "last"}
    onnx.checker.check_model(str(folder / "out.onnx"))


@pytest.mark.parametrize(
    ("models", "data", "words"),
    [
        (("float", "float"), "data", "the model to tune is not quantised"),
        (("int8", "int8"), "data", "the model is quantised already"),
        (("float", "int8"), "wide", "x"),
        (("float", "int8"), "none", "none.npz"),
    ],
)
def test_wrong_use_ends_in_one_sentence(
    folder: Path, models: tuple[str, str], data: str, words: str
) -> None:
    first, second = (folder / f"{name}.onnx" for name in models)
    done = trimton("reconstruct", first, second, folder / "out.onnx", "-d", folder / f"{data}.npz")

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "out.onnx").exists()


def test_a_recipe_tunes_towards_what_its_quantize_step_was_given(folder: Path) -> None:
    x = np.load(folder / "data.npz")["x"]
    samples = Samples(inputs={"x": x}, labels=None, source="data.npz")
    context = TransformContext(calibration=samples, instruction_sets=("avx512_vnni",))
    steps = [
        QuantizeStep(target="avx512_vnni", calibration_method="percentile", percentile=90),
        ReconstructStep(steps=200, threads=1),
    ]
    _, reports = apply_steps(load_model(folder / "float.onnx"), steps, context, "small")

    assert [report.transform for report in reports] == ["quantize", "reconstruct"]
    with pytest.raises(InputError, match="small: reconstruct: the model to tune is not quantised"):
        apply_steps(load_model(folder / "float.onnx"), steps[1:], context, "small")


def test_a_shared_quantize_step_is_done_again_where_its_result_is_tuned() -> None:
    plain = (FuseStep(), QuantizeStep())
    tuned = (*plain, ReconstructStep())

    assert shared_length(tuned, [plain]) == 1
    assert shared_length(plain, [plain]) == 2
