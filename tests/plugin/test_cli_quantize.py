"""``trimton quantize``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Program

from trimton.plugin.samples import load_samples
from trimton.plugin.steps import QuantizeStep
from trimton.plugin.steps.step import TransformContext
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

FOLDER = Path(__file__).parents[2] / "model_repository" / "fashion_resnet"
CALIBRATION = FOLDER / "calibration.npz"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / "fused.onnx"
    save_model(fuse(load_model(FOLDER / "1" / "model.onnx"))[0], path)
    return path


def test_the_whole_model_becomes_integers_and_the_account_says_so(
    capsys: pytest.CaptureFixture[str], fused: Path, tmp_path: Path
) -> None:
    result = tmp_path / "int8.onnx"

    code, out, _ = Program(capsys)(
        "quantize", fused, result, "--data", CALIBRATION, "--target", "avx2", "--json"
    )

    report = json.loads(out)
    assert code == 0
    assert load_model(result).metadata_props["trimton.quantize.target"] == "avx2"
    assert report["skipped"] == []
    assert report["size_bytes"]["after"] < 0.3 * report["size_bytes"]["before"]
    steps = {step["name"]: step for step in report["steps"]}
    assert steps["kernels"]["detail"]["unfused"] == []
    assert steps["kernels"]["detail"]["kernels"]["QLinearConv"] == 15
    assert len(steps["ranges"]["detail"]["tensors"]) > 15


def test_a_model_that_is_not_fused_is_told_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = Program(capsys)(
        "quantize",
        FOLDER / "1" / "model.onnx",
        tmp_path / "int8.onnx",
        "--data",
        CALIBRATION,
    )

    assert code == 0
    assert "fuse the model first" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "sse"], "unknown target 'sse'; take one of amx"),
        (["--target", "cuda"], "take target tensorrt, or float16"),
        (["--min-agreement", "99"], "min_agreement is 99; give a share between 0 and 1"),
        (["--exclude", "nothing*"], "no node is named 'nothing*'"),
    ],
)
def test_wrong_options_are_one_sentence_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
    fused: Path,
    tmp_path: Path,
    options: list[str],
    words: str,
) -> None:
    result = tmp_path / "int8.onnx"

    code, _, err = Program(capsys)("quantize", fused, result, "--data", CALIBRATION, *options)

    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not result.exists()


def test_auto_in_a_recipe_takes_what_the_processor_has(fused: Path) -> None:
    model = load_model(fused)
    samples = load_samples(str(CALIBRATION), input_specs(model)).first(16)
    context = TransformContext(samples, ("avx2", "avx_vnni"))

    quantised, _ = QuantizeStep().apply(model, context)

    assert quantised.metadata_props["trimton.quantize.target"] == "avx_vnni"
