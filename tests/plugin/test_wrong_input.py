"""Wrong input to any command: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimton.plugin.cli.main import main

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "model_repository" / "fashion_resnet" / "1" / "model.onnx"
CALIBRATION = ROOT / "model_repository" / "fashion_resnet" / "calibration.npz"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 2) -> str:
    """Run the program; it must end with ``code`` and one line of error. Returns that line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert caught.value.code == code, captured.err
    assert captured.out == ""
    assert captured.err.startswith("trimton: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Files that are no models, by what is wrong with them."""
    data = MODEL.read_bytes()
    unknown = onnx.load(MODEL)
    unknown.graph.node[0].op_type = "Convolution"
    files = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "truncated-at-a-field": data[:200],
        "text": b"this is no model\n" * 20,
        "rejected": unknown.SerializeToString(),
    }
    paths = {"missing": tmp_path / "missing.onnx", "folder": tmp_path / "folder.onnx"}
    paths["folder"].mkdir()
    for name, content in files.items():
        paths[name] = tmp_path / f"{name}.onnx"
        paths[name].write_bytes(content)
    before = sorted(tmp_path.iterdir())
    yield paths
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "truncated", "truncated-at-a-field", "text", "folder", "rejected"],
)
@pytest.mark.parametrize("command", ["inspect", "fuse", "quantize", "perf"])
def test_what_is_no_model_is_refused_by_every_command(
    capsys: pytest.CaptureFixture[str], broken: dict[str, Path], command: str, kind: str
) -> None:
    path = broken[kind]
    more = {
        "inspect": [],
        "fuse": [path.with_name("out.onnx")],
        "quantize": [path.with_name("out.onnx"), "--data", CALIBRATION],
        "perf": [],
    }[command]

    message = refused(capsys, command, path, *more)

    assert path.name in message


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.zeros((4, 1, 28, 28), np.float32)}, "has no array 'input'"),
        ({"input": np.zeros((4, 28, 28), np.float32)}, "has shape (4, 28, 28)"),
        ({"input": np.zeros((4, 1, 28, 28), np.int64)}, "is int64, but the model takes float32"),
        ({"input": np.full((4, 1, 28, 28), np.inf, np.float32)}, "holds NaN or Inf"),
        ({"input": np.zeros((0, 1, 28, 28), np.float32)}, "holds no samples"),
    ],
)
@pytest.mark.parametrize("command", ["fuse", "quantize", "perf", "compare"])
def test_samples_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    arrays: dict[str, np.ndarray],
    words: str,
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)  # type: ignore[arg-type]
    more = {
        "fuse": [MODEL, tmp_path / "out.onnx"],
        "quantize": [MODEL, tmp_path / "out.onnx"],
        "perf": [MODEL],
        "compare": [MODEL, MODEL],
    }[command]

    message = refused(capsys, command, *more, "--data", data)

    assert words in message
    assert "data.npz" in message
    assert [p.name for p in tmp_path.iterdir()] == ["data.npz"]


def recipe_text(**replacements: str) -> str:
    text = (ROOT / "recipes" / "fashion_resnet.yaml").read_text()
    text = text.replace("../model_repository", str(ROOT / "model_repository"))
    for old, new in replacements.items():
        text = text.replace(f"{old}:", new, 1)
    return text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rounds: 8", "round: 8", "load.round: unknown key"),
        ("seed: 1", "seed: one", "seed: input should be a valid integer"),
        ("name: fashion_resnet", "name: ../fashion_resnet", "'../fashion_resnet' is not allowed"),
        ("name: fashion_resnet", "name: fashion", "has no model 'fashion'"),
        ("calibration.npz", "calibrate.npz", "no such file"),
    ],
)
def test_a_wrong_recipe_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = recipe_text()
    assert old in text
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.replace(old, new, 1))

    message = refused(capsys, "run", recipe, "--runs", tmp_path / "runs")

    assert words in message
    assert not (tmp_path / "runs").exists()


def test_a_repository_without_models_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        recipe_text().replace(f"repository: {ROOT}/model_repository", "repository: models", 1)
    )

    assert "holds no models" in refused(capsys, "run", recipe)
    assert "models" in refused(capsys, "server", "start", tmp_path / "models")


def test_a_missing_recipe_and_nothing_to_resume_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = ROOT / "recipes" / "fashion_resnet.yaml"

    assert "no such recipe" in refused(capsys, "run", tmp_path / "none.yaml")
    assert "no unfinished run" in refused(capsys, "run", recipe, "--resume", "--runs", tmp_path)


def test_without_a_server_the_way_to_one_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "home"))
    recipe = ROOT / "recipes" / "fashion_resnet.yaml"

    message = refused(capsys, "run", recipe, "--runs", tmp_path / "runs")

    assert "trimton server install" in message
    assert not (tmp_path / "runs").exists()


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        message = refused(
            capsys, "server", "start", ROOT / "model_repository", "--http-port", str(port)
        )

    assert str(port) in message


def test_a_quantised_model_is_not_quantised_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    int8 = tmp_path / "int8.onnx"
    main_ok("quantize", MODEL, int8, "--data", CALIBRATION)
    capsys.readouterr()

    message = refused(capsys, "quantize", int8, tmp_path / "out.onnx", "--data", CALIBRATION)

    assert "is quantised already" in message
    assert not (tmp_path / "out.onnx").exists()


def test_a_place_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")

    assert "cannot be written" in refused(capsys, "fuse", MODEL, tmp_path / "file" / "out.onnx")


def test_a_full_disk_leaves_the_old_file_and_exits_with_4(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "from trimton.plugin.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code, "fuse", str(MODEL), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 4
    assert "the disk is full" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [["unknown"], ["fuse"], ["fuse", "a"], ["perf", "--rounds", "many", "a.onnx"], ["run", "--x"]],
)
def test_wrong_use_exits_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "inspect",
        "fuse",
        "quantize",
        "run",
        "perf",
        "compare",
        "server install",
        "server start",
    ],
)
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])

    assert caught.value.code == 0
    assert f"trimton {command}" in capsys.readouterr().out


def test_an_opset_before_7_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    path = tmp_path / "old.onnx"
    path.write_bytes(model.SerializeToString())

    assert "operator set 6" in refused(capsys, "inspect", path)


def main_ok(*arguments: str | Path) -> None:
    """Run the program; it must succeed."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0
