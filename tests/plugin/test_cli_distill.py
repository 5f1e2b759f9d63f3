"""``trimton distill`` and the recipe's step, as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import InputError
from trimton.plugin.recipe_file import parse_recipe
from trimton.plugin.samples import Samples, load_samples
from trimton.plugin.steps.distill import DistillStep
from trimton.plugin.steps.fuse import FuseStep
from trimton.plugin.steps.prune import PruneStep
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.variants import apply_steps
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model

QUICK = ("--threads", 1, "--batch", 32, "--learning-rate", 0.01)
RECIPE = """\
version: 1
model: {repository: models, name: net}
data: {evaluation: evaluation.npz}
variants:
  small:
    - prune: {ratio: 0.5}
    - distill: {epochs: 2}
policy:
  candidate: small
  limits:
    accuracy: {max_drop: 0.01}
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "trimton.plugin.cli.main", *map(str, arguments)]


def network(hidden: int, seed: int, path: Path, output: str = "logits") -> Path:
    rng = np.random.default_rng(seed)
    weights = {
        "a": rng.standard_normal((6, hidden)),
        "m": np.zeros(hidden),
        "v": np.full(hidden, 6.0),
        "s": np.ones(hidden),
        "t": np.zeros(hidden),
        "b": 4 * rng.standard_normal((hidden, 4)) / hidden**0.5,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("BatchNormalization", ["h", "s", "t", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], [output], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A teacher, a student, samples with labels, and a function that varies them."""
    network(32, 1, tmp_path / "teacher.onnx")
    network(8, 2, tmp_path / "student.onnx")
    x = np.random.default_rng(3).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(400) % 4)
    np.savez(tmp_path / "bare.npz", x=x)
    (tmp_path / "vary.py").write_text(
        "def jitter(batch, rng):\n"
        "    noise = rng.standard_normal(batch['x'].shape).astype('float32')\n"
        "    return {'x': batch['x'] + 0.1 * noise}\n"
    )
    return tmp_path


def models(folder: Path, out: str = "out.onnx") -> tuple[Path, Path, Path]:
    return folder / "teacher.onnx", folder / "student.onnx", folder / out


def test_trains_and_reports_for_machines(folder: Path) -> None:
    done = trimton(
        "distill", *models(folder), "--data", folder / "data.npz", "--epochs", 5, *QUICK,
        "--labels", "--augment", f"{folder}/vary.py:jitter", "--views", 2, "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    detail = report["steps"][0]["detail"]
    assert report["transform"] == "distill"
    assert report["changed"]
    assert detail["loss"]["after"] < detail["loss"]["before"]
    assert detail["accuracy"]["after"] is not None
    assert done.stderr == ""
    assert model_digest(load_model(folder / "out.onnx")) != model_digest(
        load_model(folder / "student.onnx")
    )
    assert not (folder / "out.onnx.distill").exists()


def test_tells_people_what_training_brought(folder: Path) -> None:
    done = trimton("distill", *models(folder), "--data", folder / "bare.npz", "--epochs", 2, *QUICK)

    assert done.returncode == 0, done.stderr
    assert "2 × epochs trained" in done.stdout
    assert "held-out samples loss" in done.stdout


def stopped_in_training(
    arguments: list[str], work: Path, by: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Run until a state is saved that was not there before, then send the signal."""
    before = {path: path.stat().st_mtime_ns for path in work.glob("training-*/state.pt")}
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while before == {p: p.stat().st_mtime_ns for p in work.glob("training-*/state.pt")}:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, None, errors)


def test_a_killed_command_goes_on_to_the_same_weights(folder: Path) -> None:
    options = (
        "--data", folder / "bare.npz", "--epochs", 60, *QUICK,
        "--augment", f"{folder}/vary.py:jitter",
    )  # fmt: skip
    whole = trimton("distill", *models(folder, "whole.onnx"), *options)
    assert whole.returncode == 0, whole.stderr

    broken = command("distill", *models(folder, "killed.onnx"), *options)
    work = folder / "killed.onnx.distill"
    interrupted = stopped_in_training(broken, work, signal.SIGINT)
    killed = stopped_in_training(broken, work, signal.SIGKILL)
    assert interrupted.returncode == 130
    assert "the same command goes on" in interrupted.stderr
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "killed.onnx").exists()

    resumed = trimton("distill", *models(folder, "killed.onnx"), *options)
    assert resumed.returncode == 0, resumed.stderr
    first, second = (
        model_digest(load_model(folder / f"{name}.onnx")) for name in ("whole", "killed")
    )
    assert first == second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "none.npz"), "none.npz: no such file"),
        (("--data", "bare.npz", "--labels"), "bare.npz: has no labels"),
        (("--data", "bare.npz", "--optimiser", "lion"), "choose adamw or sgd"),
        (("--data", "bare.npz", "--loss", "logits"), "--loss logits: must be two names"),
        (("--data", "bare.npz", "--loss", "y=logits"), "loss y=logits: is no output"),
        (("--data", "bare.npz", "--augment", "vary.py:none"), "vary.py:none: cannot be imported"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(
    folder: Path, options: tuple[object, ...], words: str
) -> None:
    run = [sys.executable, "-m", "trimton.plugin.cli.main", "distill"]
    arguments = [*run, "teacher.onnx", "student.onnx", "out.onnx", *map(str, options)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=60, cwd=folder
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "out.onnx").exists()


def test_without_torch_it_says_which_extra_to_install(folder: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from trimton.plugin.cli.main import main; main(sys.argv[1:])"
    )
    arguments = ["distill", *models(folder), "--data", folder / "bare.npz"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert "pip install 'trimton[distill]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_recipe_teaches_with_the_original(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "teacher.onnx")
    samples = load_samples(folder / "data.npz", input_specs(model))
    steps = [
        PruneStep(ratio=0.5, multiple=4),
        DistillStep(epochs=8, batch=32, learning_rate=0.01, augment="vary.py:jitter"),
        FuseStep(),
    ]
    heard: list[tuple[int, int]] = []
    context = TransformContext(
        None,
        (),
        training=samples,
        recipe_folder=folder,
        work_folder=tmp_path / "work",
        on_progress=lambda done, count: heard.append((done, count)),
    )
    made, reports = apply_steps(model, steps, context, "variants.small")
    loss = reports[1].steps[0].detail["loss"]

    assert loss["after"] < 0.7 * loss["before"]
    assert heard[-1] == (8 * 11, 8 * 11)
    assert not [node for node in made.graph if node.op_type == "BatchNormalization"]


def test_a_recipe_cuts_and_trains_in_turn_and_resumes(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "teacher.onnx")
    samples = load_samples(folder / "data.npz", input_specs(model))
    trained = DistillStep(epochs=4, batch=32, learning_rate=0.01)
    cut = PruneStep(ratio=0.5, multiple=4, refit=False)
    steps = [cut, trained, cut, trained]
    every_step = 2 * 4 * (360 // 32)

    def context(work: Path, stop_after: int | None = None) -> TransformContext:
        heard: list[int] = []

        def hear(done: int, count: int) -> None:
            heard.append(done)
            if len(heard) == stop_after:
                raise KeyboardInterrupt

        return TransformContext(None, (), training=samples, work_folder=work, on_progress=hear)

    whole, reports = apply_steps(model, steps, context(tmp_path / "whole"), "variants.small")
    losses = [report.steps[0].detail["loss"] for report in reports[1::2]]
    with pytest.raises(KeyboardInterrupt):
        # In the second training, behind what the teacher's answers and the first one told.
        apply_steps(model, steps, context(tmp_path / "work", every_step * 3 // 4), "variants.small")
    resumed, again = apply_steps(model, steps, context(tmp_path / "work"), "variants.small")

    assert [report.after.parameters for report in reports] == sorted(
        (report.after.parameters for report in reports), reverse=True
    )
    assert losses[0]["after"] < losses[1]["before"]  # both by the original's answers
    assert losses[1]["after"] < losses[1]["before"]
    assert model_digest(resumed) == model_digest(whole)
    assert [report.to_json() for report in again] == [report.to_json() for report in reports]


def test_a_recipe_with_labels_needs_samples_that_have_some(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "teacher.onnx")
    bare = Samples("bare.npz", load_samples(folder / "bare.npz", input_specs(model)).inputs)
    context = TransformContext(bare, (), work_folder=tmp_path)

    with pytest.raises(InputError, match=r"variants\.small: distill: bare\.npz: has no labels"):
        apply_steps(model, [DistillStep(labels=True)], context, "variants.small")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("evaluation: e", "evaluation: e", "data.training: is missing, but variant 'small'"),
        ("epochs: 2", "epochs: 0", "epochs 0: must be a whole number above 0"),
        ("epochs: 2", "epochs: 2, losses: {y: mse}", "loss y=mse: is not known"),
        ("epochs: 2", "epoch: 2", "unknown key"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_recipe(RECIPE.replace(old, new), Path("r.yaml"))
