"""Probes: they fit the model, they are the same every time, and they notice a difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.probe import compare_outputs, given_probes, random_probes

Make = Callable[..., ir.Model]
LINEAR = "g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }"


def weight(value: float = 1.0) -> np.ndarray:
    return np.full((3, 4), value, np.float32)


def test_probes_are_the_same_every_time(make_model: Make) -> None:
    model = make_model(LINEAR, w=weight())
    first, second = random_probes(model), random_probes(model)
    assert all(
        np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(first, second, strict=True)
    )
    assert not np.array_equal(random_probes(model, seed=1)[0].inputs["x"], first[0].inputs["x"])


def test_sizes_are_found_that_the_model_accepts(make_model: Make) -> None:
    model = make_model(
        "g (float[N,1,L] x, float[1,1,150] w) => (float[N,1,M] y) { y = Conv(x, w) }",
        w=np.ones((1, 1, 150), np.float32),
    )
    assert random_probes(model)[0].inputs["x"].shape[2] >= 150


def test_probes_that_show_nothing_are_passed_over(make_model: Make) -> None:
    model = make_model(
        """g (float[N,L] x, int64[1] start, int64[1] end, int64[1] axis) => (float[N,M] y)
        { y = Slice(x, start, end, axis) }""",
        start=np.array([100]),
        end=np.array([2**31]),
        axis=np.array([1]),
    )
    assert random_probes(model)[0].outputs["y"].size > 0


def test_sizes_of_one_name_are_equal_and_unnamed_ones_are_searched(make_model: Make) -> None:
    model = make_model(
        "g (float[A,B] x, float[B,A] z, float[2,C] w) => (float[A,A] y, float[2,D] v)"
        "{ y = MatMul(x, z) v = Concat <axis = 1> (w, w) }"
    )
    inputs = random_probes(model)[0].inputs
    assert inputs["x"].shape == inputs["z"].shape[::-1]


def test_indices_stay_within_a_small_table(make_model: Make) -> None:
    model = make_model(
        "g (int64[N,S] ids, float[2,3] table) => (float[N,S,3] y) { y = Gather(table, ids) }",
        table=weight()[:2, :3].copy(),
    )
    assert random_probes(model)[0].inputs["ids"].max() < 2


def test_strings_and_truths_are_probed(make_model: Make) -> None:
    model = make_model(
        "g (string[N] s, bool[N] b) => (string[N] t, bool[N] c) { t = Identity(s) c = Not(b) }"
    )
    probe = random_probes(model)[0]
    assert probe.inputs["s"].dtype == object
    assert probe.inputs["b"].dtype == bool


def test_both_branches_of_a_comparison_are_probed(make_model: Make) -> None:
    model = make_model(
        """g (float[2] x, int64 rate, int64 fast) => (float[2] y)
        { c = Equal(rate, fast)
          y = If (c) <then_branch = a () => (float[2] t) { t = Relu(x) },
                      else_branch = b () => (float[2] e) { e = Neg(x) }> }""",
        fast=np.array(16000),
    )
    assert {int(probe.inputs["rate"]) for probe in random_probes(model)} >= {16000}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[N] x) => (float[N] y) { y = RandomNormalLike(x) }", "is random"),
        (
            "g (float[N,2] x, int64[1] s) => (float[M] y) { y = Reshape(x, s) }",
            "no random input suits",
        ),
    ],
)
def test_why_there_is_no_probe(make_model: Make, text: str, reason: str) -> None:
    weights = {"s": np.array([7919])} if "s)" in text and "Reshape" in text else {}
    with pytest.raises(UnsupportedModelError, match=reason):
        random_probes(make_model(text, **weights))


def test_custom_operators_cannot_be_probed(make_model: Make) -> None:
    model = make_model(
        "g (float[N] x) => (float[N] y) { y = their.domain.Magic(x) }",
        domains=', "their.domain" : 1',
    )
    with pytest.raises(UnsupportedModelError, match=r"does not know their\.domain::Magic"):
        random_probes(model)


def test_a_changed_weight_is_noticed_and_measured(make_model: Make) -> None:
    probes = random_probes(make_model(LINEAR, w=weight()))
    (same,) = compare_outputs(make_model(LINEAR, w=weight()), probes)
    (changed,) = compare_outputs(make_model(LINEAR, w=weight(1.01)), probes)
    assert same.relative == 0
    assert changed.relative == pytest.approx(0.01, rel=1e-3)


def test_given_data_is_cut_to_the_batch_of_the_model(make_model: Make) -> None:
    model = make_model(LINEAR.replace("N", "2"), w=weight())
    probes = given_probes(model, {"x": np.ones((5, 3), np.float32)})
    assert [probe.inputs["x"].shape for probe in probes] == [(2, 3), (2, 3)]
    with pytest.raises(InputError, match="has 1 samples; the model takes 2 at once"):
        given_probes(model, {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(InputError, match="cannot be run on the data"):
        given_probes(model, {"x": np.ones((2, 9), np.float32)})
    with pytest.raises(InputError, match="no array for any input"):
        given_probes(model, {"z": np.ones((2, 3), np.float32)})


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([NAN, 2.0], [NAN, 1.0], 0.5),
        ([NAN, 2.0], [2.0, NAN], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF, 2.0], [INF, 2.0], 0),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([NAN], [NAN], 0),
        ([1, 2], [1, 2], 0),
        ([1, 2], [1, 3], INF),
        (["a"], ["a"], 0),
        (["a"], ["b"], INF),
        ([1.0], [1.0, 1.0], INF),
    ],
)
def test_relative_difference(old: list[object], new: list[object], expected: float) -> None:
    assert relative_difference(np.array(old), np.array(new)) == expected


def test_sequences_and_maps_are_compared_item_by_item() -> None:
    old = [{1: 0.5, 2: 0.5}, {1: 1.0, 2: 0.0}]
    assert relative_difference(old, old) == 0
    assert relative_difference(old, [{1: 0.5, 2: 0.5}, {1: 0.9, 2: 0.1}]) > 0
    assert relative_difference(old, old[:1]) == INF
    assert relative_difference(old, [{1: 0.5, 3: 0.5}, {1: 1.0, 2: 0.0}]) == INF
