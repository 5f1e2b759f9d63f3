"""What outputs mean, and which values inside two models belong together, is read off the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.distill.kinds import output_kinds
from trimton.transforms.distill.pairs import check_pairs, find_pairs
from trimton.transforms.distill.teacher import Answers
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune

ModelMaker = Callable[..., ir.Model]


@pytest.mark.parametrize(
    ("body", "name", "kind"),
    [
        ("y = Softmax(x)", "y", "probabilities"),
        ("y = Softmax <axis = 0> (x)", "y", "values"),
        ("y = LogSoftmax(x)", "y", "logits"),
        ("y = Sigmoid(x)", "y", "chances"),
        ("s = Softmax(x)  y = Identity(s)", "y", "probabilities"),
        ("y = LpNormalization(x)", "y", "direction"),
        ("my_logits = Relu(x)", "my_logits", "logits"),
        ("sentence_embedding = Relu(x)", "sentence_embedding", "direction"),
        ("y = Gemm(x, w)", "y", "values"),
    ],
)
def test_an_output_means_what_makes_it_or_its_name(
    make_model: ModelMaker, body: str, name: str, kind: str
) -> None:
    weight = {"w": np.eye(4, dtype=np.float32)}
    model = make_model(
        f"g (float[N,4] x, float[4,4] w) => (float[N,4] {name}) {{{body}}}", **weight
    )

    assert output_kinds(model, {}) == {name: kind}


def test_with_labels_a_plain_layer_makes_logits_where_it_has_enough_scores(
    make_model: ModelMaker,
) -> None:
    model = make_model(
        "g (float[N,4] x, float[4,4] w) => (float[N,4] y) {y = Gemm(x, w)}",
        w=np.eye(4, dtype=np.float32),
    )

    assert output_kinds(model, {}, classes=4) == {"y": "logits"}
    assert output_kinds(model, {}, classes=5) == {"y": "values"}
    assert output_kinds(model, {"y": "direction"}, classes=4) == {"y": "direction"}


def test_outputs_of_integers_are_not_learnt(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,4] x) => (float[N,4] y, int64[N,1] i) {y = Relu(x) i = ArgMax <axis = 1> (x)}"
    )

    assert list(output_kinds(model, {})) == ["y"]
    with pytest.raises(InputError, match="loss i=logits: is no output of floating point"):
        output_kinds(model, {"i": "logits"})


BLOCK = """
  a{n} = Conv <pads = [1,1,1,1]> ({x}, w)
  b{n} = Relu(a{n})
  c{n} = Conv <pads = [1,1,1,1]> (b{n}, w)
  d{n} = Add(c{n}, {x})
  {y} = Relu(d{n})
"""


def residual(make_model: ModelMaker, names: list[str], width: int = 4) -> ir.Model:
    body = "".join(
        BLOCK.format(n=f"_{name}", x=before, y=name)
        for before, name in zip(["x", *names], names, strict=False)
    )
    size = f"{width},6,6"
    header = f"g (float[N,{size}] x, float[{width},{width},3,3] w) => (float[N,{width},1,1] y)"
    kernel = np.random.default_rng(0).standard_normal((width, width, 3, 3))
    weights = {"w": kernel.astype(np.float32) / 6}
    return make_model(f"{header} {{{body} y = GlobalAveragePool({names[-1]})}}", **weights)


def test_ends_of_blocks_are_paired_by_name_then_by_shape_from_the_last_one_back(
    make_model: ModelMaker,
) -> None:
    teacher = residual(make_model, ["r1", "r2", "r3", "r4"])

    assert find_pairs(teacher, teacher) == tuple((f"r{n}", f"r{n}") for n in (1, 2, 3, 4))
    renamed = residual(make_model, ["q1", "r2", "q3"])
    assert find_pairs(teacher, renamed) == (("r3", "q1"), ("r2", "r2"), ("r4", "q3"))


def test_thinner_values_are_paired_by_name(make_model: ModelMaker) -> None:
    names = ["r1", "r2"]
    teacher, student = residual(make_model, names, 6), residual(make_model, names, 4)

    assert find_pairs(teacher, student) == (("r1", "r1"), ("r2", "r2"))
    assert check_pairs(teacher, student, [("r1", "r2")]) == (("r1", "r2"),)


def test_a_student_without_its_teachers_shapes_has_no_pairs(make_model: ModelMaker) -> None:
    teacher = residual(make_model, ["r1", "r2"])
    thin, _ = prune(
        make_model(
            "g (float[N,4] x, float[4,32] a, float[32,4] b) => (float[N,4] y)"
            "{h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)}",
            a=np.ones((4, 32), np.float32),
            b=np.ones((32, 4), np.float32),
        ),
        PruneSettings(ratio=0.5),
    )

    assert find_pairs(teacher, thin) == ()


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("none", "r1"), "the teacher has no value 'none'"),
        (("r1", "none"), "the student has no value 'none'"),
        (("r1", "y"), r"have the shapes \[1, 4, 6, 6\] and \[1, 4, 1, 1\]"),
    ],
)
def test_chosen_pairs_must_be_there_and_of_one_shape(
    make_model: ModelMaker, pair: tuple[str, str], words: str
) -> None:
    model = residual(make_model, ["r1", "r2"])

    assert check_pairs(model, model, [("r1", "r2")]) == (("r1", "r2"),)
    with pytest.raises(InputError, match=words):
        check_pairs(model, model, [pair])


@pytest.mark.parametrize("batch", ["N", "7"])
def test_a_teacher_answers_any_number_of_samples(make_model: ModelMaker, batch: str) -> None:
    model = make_model(
        f"g (float[{batch},4] x, float[4,3] w) => (float[{batch},3] y)"
        "{h = Relu(x) y = MatMul(h, w)}",
        w=np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32),
    )
    x = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)
    answers = Answers(model, ["h", "y"], threads=1)
    session = open_session(model)
    width = 7 if batch == "7" else 1
    expected = [run(session, {"x": np.tile(row, (width, 1))})["y"][0] for row in x]

    for count in (1, 5, 7, 16):
        made = answers({"x": x[:count]})
        np.testing.assert_allclose(made["y"], expected[:count], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(made["h"], np.maximum(x[:count], 0))
