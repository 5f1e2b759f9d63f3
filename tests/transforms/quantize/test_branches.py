"""Branches of If nodes are quantised as models of their own, on what reaches them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize

RNG = np.random.default_rng(0)
CONV = RNG.normal(0, 0.3, size=(8, 8, 3, 3)).astype(np.float32)
PLAIN = QuantizeSettings(target="avx512_vnni", refine=False, equalise=False, smooth=False)

# The rate decides between two networks that share a weight; one has a condition of its own.
NESTED = """
g (float[N,8,6,6] x, int64 rate, float[8,8,3,3] w) => (float[N,8,A,B] y) {
    fast = Constant<value_int=16>()
    c = Equal(rate, fast)
    s = Abs(x)
    y = If(c) <
        then_branch = t () => (float[N,8,A,B] p) {
            a = Conv(s, w)
            r = Relu(a)
            m = ReduceMax<keepdims=0>(r)
            big = Cast<to=9>(m)
            p = If(big) <
                then_branch = tt () => (float[N,8,A,B] q) { q = Conv(r, w) },
                else_branch = te () => (float[N,8,A,B] q2) { q2 = Identity(r) }
            >
        },
        else_branch = e () => (float[N,8,A,B] o) { o = Conv(x, w) }
    >
}
"""


def requests(rates: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "x": RNG.normal(size=(1, 8, 6, 6)).astype(np.float32),
            "rate": np.asarray(rate, np.int64),
        }
        for rate in rates
    ]


def convolutions(report: Any) -> int:
    return sum(s.count for s in report.steps if s.detail.get("op_type") == "Conv")


def closeness_db(model: ir.Model, quantised: ir.Model, feeds: dict[str, Any]) -> float:
    before, after = (run(open_session(m, optimise=True), feeds)["y"] for m in (model, quantised))
    noise = max(float(((before - after) ** 2).mean()), 1e-30)
    return float(10 * np.log10((before**2).mean() / noise))


def test_nested_branches_are_quantised_where_samples_reach_them(make_model: Any) -> None:
    model = make_model(NESTED, w=CONV)
    data = requests([16, 8] * 8)

    quantised, report = quantize(model, data, PLAIN)

    onnx.checker.check_model(ir.serde.serialize_model(quantised), full_check=True)
    assert convolutions(report) == 3
    for feeds in data[:2]:
        assert 20 < closeness_db(model, quantised, feeds) < 80
    (kernels,) = [step for step in report.steps if step.name == "kernels"]
    assert kernels.detail["unfused"] == []


def test_a_branch_that_no_sample_reaches_stays_in_float_and_is_named(make_model: Any) -> None:
    model = make_model(NESTED, w=CONV)

    quantised, report = quantize(model, requests([8] * 4), PLAIN)

    assert convolutions(report) == 1
    assert ("then_branch of n3", "no sample reaches this branch") in {
        (skipped.what, skipped.why) for skipped in report.skipped
    }
    (untouched,) = requests([16])
    np.testing.assert_array_equal(
        *(run(open_session(m), untouched)["y"] for m in (model, quantised))
    )


def test_a_node_in_a_branch_can_be_excluded(make_model: Any) -> None:
    model = make_model(NESTED, w=CONV)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.outputs[0].name == "o":
            node.name = "branch_conv"
    settings = replace(PLAIN, exclude=("branch_*",))

    _, report = quantize(model, requests([16, 8] * 4), settings)

    assert convolutions(report) == 2
    assert any(skipped.why == "excluded by name" for skipped in report.skipped)


def test_requests_that_do_not_suit_the_model_are_refused(make_model: Any) -> None:
    model = make_model(NESTED, w=CONV)

    with pytest.raises(InputError, match="cannot be run on the data given"):
        quantize(model, [{"x": np.ones((1, 7, 6, 6), np.float32), "rate": np.asarray(8)}], PLAIN)
    with pytest.raises(InputError, match="no samples"):
        quantize(model, [], PLAIN)


def test_a_model_whose_only_weights_no_sample_reaches_is_refused(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, bool c, float[8,8,3,3] w) => (float[N,8,A,B] y) {"
        "y = If(c) <then_branch = t () => (float[N,8,A,B] p) { p = Conv(x, w) },"
        "else_branch = e () => (float[N,8,A,B] o) { o = Identity(x) }> }",
        w=CONV,
    )
    feeds = {"x": np.ones((1, 8, 6, 6), np.float32), "c": np.asarray(False)}

    with pytest.raises(UnsupportedModelError, match="nothing to quantise"):
        quantize(model, [feeds], PLAIN)
