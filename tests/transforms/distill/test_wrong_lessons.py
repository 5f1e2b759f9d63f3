"""What does not fit is refused in one sentence, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.distill.distilling import distill
from trimton.transforms.distill.settings import DistillSettings

ModelMaker = Callable[..., ir.Model]
NetworkMaker = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]

QUICK = DistillSettings(epochs=1, threads=1)


def test_a_student_with_other_outputs(
    teacher: ir.Model, network: NetworkMaker, samples: Samples, tmp_path: Path
) -> None:
    other = network(8, 1, output="scores")

    with pytest.raises(InputError, match=r"outputs \(scores float32\[\?, 4\]\) are not those of"):
        distill(teacher, other, samples, QUICK, tmp_path)


def test_a_student_with_outputs_of_another_size(
    teacher: ir.Model, make_model: ModelMaker, samples: Samples, tmp_path: Path
) -> None:
    other = make_model(
        "g (float[N,6] x, float[6,5] w) => (float[N,5] logits) {logits = MatMul(x, w)}",
        w=np.ones((6, 5), np.float32),
    )

    with pytest.raises(InputError, match=r"'logits' is float32\[\?, 5\] of the student, but"):
        distill(teacher, other, samples, QUICK, tmp_path)


def test_a_student_that_reads_something_else(
    teacher: ir.Model, make_model: ModelMaker, samples: Samples, tmp_path: Path
) -> None:
    other = make_model(
        "g (float[N,6] z, float[6,4] w) => (float[N,4] logits) {logits = MatMul(z, w)}",
        w=np.ones((6, 4), np.float32),
    )

    with pytest.raises(InputError, match="input 'z' of the student is none of the teacher"):
        distill(teacher, other, samples, QUICK, tmp_path)


@pytest.mark.parametrize(
    ("count", "words"), [(0, "there are no samples"), (1, "too few to train on some and judge")]
)
def test_too_few_samples(
    teacher: ir.Model, student: ir.Model, tmp_path: Path, count: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        distill(teacher, student, {"x": np.zeros((count, 6), np.float32)}, QUICK, tmp_path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(599, np.int64), "599 labels for 600 samples"),
        (np.full(600, 4), "labels go from 4 to 4, but output 'logits' has 4 classes"),
        (np.full(600, -1), "labels go from -1 to -1"),
    ],
)
def test_labels_that_do_not_fit(
    teacher: ir.Model,
    student: ir.Model,
    samples: Samples,
    tmp_path: Path,
    labels: np.ndarray,
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        distill(teacher, student, samples, QUICK, tmp_path, labels=labels)


def test_labels_without_classes(network: NetworkMaker, samples: Samples, tmp_path: Path) -> None:
    models = network(8, 1, output="y", tail="Sigmoid"), network(8, 2, output="y", tail="Sigmoid")

    with pytest.raises(InputError, match="labels need one output of classes"):
        distill(*models, samples, QUICK, tmp_path, labels=np.zeros(600, np.int64))


def test_nothing_to_learn_by_gradients(make_model: ModelMaker, tmp_path: Path) -> None:
    model = make_model("g (float[N,4] x) => (int64[N,1] i) {i = ArgMax <axis = 1> (x)}")

    with pytest.raises(InputError, match="no output is of floating point"):
        distill(model, model, {"x": np.zeros((9, 4), np.float32)}, QUICK, tmp_path)


def test_nothing_to_mix(make_model: ModelMaker, tmp_path: Path) -> None:
    model = make_model(
        "g (int64[N] i, float[5,4] t) => (float[N,4] y) {y = Gather(t, i)}",
        t=np.ones((5, 4), np.float32),
    )
    samples = {"i": np.arange(20) % 5}

    with pytest.raises(InputError, match=r"mixing 0\.2: the model takes no input of floating"):
        distill(model, model, samples, replace(QUICK, mixing=0.2), tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs 0: must be a whole number above 0"),
        ({"optimiser": "lion"}, "optimiser 'lion': is not known; choose adamw or sgd"),
        ({"precision": "float16"}, "choose float32 or bfloat16"),
        ({"held_out": 1.0}, "held_out 1.0: must be a share between 0 and 1"),
        ({"averaging": 1.0}, "averaging 1.0"),
        ({"losses": (("y", "mse"),)}, "loss y=mse: is not known; choose logits"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DistillSettings(**options)
