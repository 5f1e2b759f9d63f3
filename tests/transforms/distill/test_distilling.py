"""Distilling: a student comes closer to its teacher, and is never made worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.distill.distilling import Listeners, distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.teacher import Answers
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.report import TransformReport

ModelMaker = Callable[..., ir.Model]
NetworkMaker = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]

QUICK = DistillSettings(epochs=8, batch=32, learning_rate=0.02, averaging=0.9, threads=1)


def loss(report: TransformReport, when: str) -> float:
    return float(report.steps[0].detail["loss"][when])


def outputs(model: ir.Model, samples: Samples, name: str) -> np.ndarray:
    return np.asarray(run(open_session(model), samples)[name])


def test_a_student_learns_to_answer_as_its_teacher(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    before = model_digest(student)
    trained, report = distill(teacher, student, samples, QUICK, tmp_path)
    fresh = {"x": np.random.default_rng(99).standard_normal((500, 6)).astype(np.float32)}
    wanted, old, new = (outputs(m, fresh, "logits").argmax(1) for m in (teacher, student, trained))

    assert report.changed
    assert loss(report, "after") < 0.3 * loss(report, "before")
    assert (new == wanted).mean() > (old == wanted).mean() + 0.3
    assert interface(trained) == interface(student)
    assert model_digest(student) == before
    assert report.steps[0].detail["agreement"]["after"] > 0.7


def test_the_report_tells_the_loss_of_what_is_written(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    trained, report = distill(teacher, student, samples, QUICK, tmp_path)
    losses = report.steps[0].detail["held_out_losses"]

    assert len(losses) == QUICK.epochs + 1
    assert loss(report, "before") == pytest.approx(losses[0], rel=1e-4)
    assert loss(report, "after") == pytest.approx(min(losses), rel=1e-4)
    _, second = distill(
        teacher, trained, samples, replace(QUICK, epochs=1, learning_rate=1e-9), tmp_path
    )
    assert loss(second, "before") == pytest.approx(loss(report, "after"), rel=1e-4)


def test_running_statistics_are_trained_unless_frozen(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    def statistics(model: ir.Model) -> np.ndarray:
        return model.graph.initializers["v"].const_value.numpy()

    trained, _ = distill(teacher, student, samples, QUICK, tmp_path)
    frozen, _ = distill(teacher, student, samples, replace(QUICK, batch_norm="frozen"), tmp_path)

    assert np.abs(statistics(trained) - statistics(student)).max() > 0.1
    np.testing.assert_array_equal(statistics(frozen), statistics(student))


def test_a_student_that_cannot_become_better_stays_as_it_is(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=2, learning_rate=0.5)
    kept, report = distill(teacher, teacher, samples, settings, tmp_path)

    assert not report.changed
    assert model_digest(kept) == model_digest(teacher)
    assert loss(report, "after") == loss(report, "before")


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_best(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    seen = 0

    def explode(batch: Samples, rng: np.random.Generator) -> Samples:
        nonlocal seen
        seen += 1
        return {"x": batch["x"] * np.float32(5e37 if seen > 40 else 1)}

    trained, report = distill(teacher, student, samples, QUICK, tmp_path, augmentation=explode)

    assert report.changed
    assert loss(report, "after") < loss(report, "before")
    assert [s.what for s in report.skipped] == ["the rest of the training"]
    assert "the loss is" in report.skipped[0].why
    assert report.steps[0].detail["epochs"] == report.steps[0].detail["best_epoch"] == 2
    assert np.isfinite(outputs(trained, samples, "logits")).all()


def test_training_stops_where_epochs_bring_nothing(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(QUICK, learning_rate=0.3, patience=2)
    _, report = distill(teacher, teacher, samples, settings, tmp_path)

    assert report.steps[0].detail["epochs"] == 2
    assert "2 epochs brought nothing" in report.skipped[0].why


def test_labels_correct_a_teacher_that_is_wrong(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    labels = (outputs(teacher, samples, "logits").argmax(1) + 1) % 4
    settings = replace(QUICK, epochs=15, label_weight=1.0)
    _, report = distill(teacher, student, samples, settings, tmp_path, labels=labels)
    found = report.steps[0].detail

    assert found["accuracy"]["after"] > 0.6
    assert found["agreement"]["after"] < 0.3


@pytest.mark.parametrize(
    ("output", "tail"),
    [("y", "Softmax"), ("y", "Sigmoid"), ("embedding", ""), ("y", "")],
)
def test_every_kind_of_output_is_learnt(
    network: NetworkMaker, samples: Samples, tmp_path: Path, output: str, tail: str
) -> None:
    teacher, student = (network(*sizes, output=output, tail=tail) for sizes in ((32, 1), (8, 50)))
    _, report = distill(teacher, student, samples, QUICK, tmp_path)

    assert loss(report, "after") < 0.5 * loss(report, "before")


def test_steps_of_a_sequence_are_learnt_one_by_one(make_model: ModelMaker, tmp_path: Path) -> None:
    def tagger(width: int, seed: int) -> ir.Model:
        rng = np.random.default_rng(seed)
        return make_model(
            f"g (float[N,T,5] x, float[5,{width}] a, float[{width},3] b) => (float[N,T,3] y)"
            "{h = MatMul(x, a) r = Tanh(h) z = MatMul(r, b) y = Softmax <axis = -1> (z)}",
            a=rng.standard_normal((5, width)).astype(np.float32),
            b=rng.standard_normal((width, 3)).astype(np.float32),
        )

    x = np.random.default_rng(1).standard_normal((200, 7, 5)).astype(np.float32)
    _, report = distill(tagger(16, 1), tagger(8, 2), {"x": x}, replace(QUICK, epochs=20), tmp_path)

    assert loss(report, "after") < 0.5 * loss(report, "before")
    agreement = report.steps[0].detail["agreement"]
    assert agreement["after"] > agreement["before"] + 0.2


@pytest.mark.parametrize("features", [None, (("r", "r"),)])
def test_values_inside_come_closer_where_they_are_matched(
    network: NetworkMaker,
    samples: Samples,
    tmp_path: Path,
    features: tuple[tuple[str, str], ...] | None,
) -> None:
    teacher, student = network(8, 1), network(8, 50)

    def distance(model: ir.Model) -> float:
        made = []
        for each in (teacher, model):
            tapped = each.clone()
            tapped.graph.outputs[:] = [n.outputs[0] for n in tapped.graph if n.op_type == "Relu"]
            tapped.graph.outputs[0].shape = ir.Shape(["N", 8])
            tapped.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            made.append(outputs(tapped, samples, "r"))
        return float(((made[0] - made[1]) ** 2).mean())

    alone, _ = distill(teacher, student, samples, QUICK, tmp_path)
    matched, _ = distill(
        teacher, student, samples, replace(QUICK, feature_weight=5.0, features=features), tmp_path
    )

    assert distance(matched) < 0.5 * distance(alone)


def test_thinner_values_are_matched_through_a_linear_map(
    network: NetworkMaker, samples: Samples, tmp_path: Path
) -> None:
    teacher, student = network(32, 1), network(8, 50)

    def unexplained(model: ir.Model) -> float:
        """The share of the teacher's hidden values that is no linear map of the student's."""
        theirs, ours = (Answers(each, ["r"], threads=1)(samples)["r"] for each in (teacher, model))
        ours = np.column_stack([ours, np.ones(len(ours))])
        left = theirs - ours @ np.linalg.lstsq(ours, theirs, rcond=None)[0]
        return float((left**2).mean() / theirs.var())

    settings = replace(QUICK, feature_weight=5.0)
    alone, _ = distill(teacher, student, samples, QUICK, tmp_path)
    matched, report = distill(teacher, student, samples, settings, tmp_path)

    assert not report.skipped
    assert unexplained(matched) < 0.9 * unexplained(alone)


def test_a_model_with_a_fixed_batch_is_trained_with_it(
    network: NetworkMaker, samples: Samples, tmp_path: Path
) -> None:
    teacher, student = network(32, 1), network(8, 50, batch="16")
    trained, report = distill(teacher, student, samples, QUICK, tmp_path)

    assert loss(report, "after") < 0.5 * loss(report, "before")
    assert report.steps[0].detail["held_out_samples"] % 16 == 0
    assert outputs(trained, {"x": samples["x"][:16]}, "logits").shape == (16, 4)


def test_a_pruned_student_gets_back_what_the_cut_took(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    pruned, _ = prune(teacher, PruneSettings(ratio=0.5, multiple=4))
    _, report = distill(teacher, pruned, samples, QUICK, tmp_path)

    assert loss(report, "after") < 0.5 * loss(report, "before")


@pytest.mark.parametrize(
    "variation", [{"optimiser": "sgd"}, {"precision": "bfloat16"}, {"mixing": 0.4}, {"views": 2}]
)
def test_every_way_of_training_helps(
    teacher: ir.Model,
    student: ir.Model,
    samples: Samples,
    tmp_path: Path,
    variation: dict[str, object],
) -> None:
    _, report = distill(teacher, student, samples, replace(QUICK, **variation), tmp_path)

    assert loss(report, "after") < 0.5 * loss(report, "before")


def test_the_teacher_is_asked_once_for_students_on_the_same_samples(
    teacher: ir.Model, student: ir.Model, network: NetworkMaker, samples: Samples, tmp_path: Path
) -> None:
    asked = []
    heard = Listeners(answering=lambda done, count: asked.append(done))
    settings = replace(QUICK, epochs=1)
    distill(teacher, student, samples, settings, tmp_path, listeners=heard)
    first = len(asked)
    distill(teacher, network(4, 70), samples, settings, tmp_path, listeners=heard)

    assert first > 0
    assert len(asked) == first
    other = {"x": samples["x"] + 1}
    distill(teacher, student, other, settings, tmp_path, listeners=heard)
    assert len(asked) > first


def test_answers_that_take_too_much_room_are_not_stored(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=2, cache_limit_bytes=100)
    _, report = distill(teacher, student, samples, settings, tmp_path)

    assert report.changed
    assert not list(tmp_path.glob("answers-*"))


def test_a_batch_of_one_sample_leaves_running_statistics_alone(
    network: NetworkMaker, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=2, learning_rate=0.002)
    models = network(32, 1), network(8, 50, batch="1")
    trained, report = distill(*models, samples, settings, tmp_path)
    old, new = (m.graph.initializers["v"].const_value.numpy() for m in (models[1], trained))

    assert loss(report, "after") < loss(report, "before")
    np.testing.assert_array_equal(old, new)
    assert [s.what for s in report.skipped] == ["running statistics of BatchNormalizations"]


def test_a_student_whose_outputs_are_no_numbers_is_mended_and_told_without_them(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    student.graph.initializers["v"].const_value = ir.tensor(np.full(8, -7, np.float32), name="v")
    _, report = distill(teacher, student, samples, QUICK, tmp_path)

    assert report.changed
    assert report.steps[0].detail["loss"]["before"] is None
    assert loss(report, "after") < 1
    assert report.max_relative_difference is None
    json.dumps(report.to_json(), allow_nan=False)


def test_a_student_may_do_without_an_input_of_its_teacher(
    make_model: ModelMaker, tmp_path: Path
) -> None:
    teacher = make_model("g (float[N,4] x, float[N,4] z) => (float[N,4] y) {y = Add(x, z)}")
    student = make_model(
        "g (float[N,4] x, float[4,4] w) => (float[N,4] y) {y = MatMul(x, w)}",
        w=np.zeros((4, 4), np.float32),
    )
    rng = np.random.default_rng(0)
    samples = {"x": rng.standard_normal((300, 4)).astype(np.float32)}
    _, report = distill(
        teacher, student, {**samples, "z": samples["x"]}, replace(QUICK, epochs=40), tmp_path
    )

    assert loss(report, "after") < 0.1 * loss(report, "before")
