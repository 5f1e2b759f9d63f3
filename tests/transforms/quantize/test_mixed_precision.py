"""Sensitivity, and the layers that stay in float for the sake of the outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.quantize.fidelity import Fidelity, Reference
from trimton.transforms.quantize.mixed_precision import Goal, mix
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.quantiser import Quantiser
from trimton.transforms.quantize.sensitivity import quantised_layers, sensitivities
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.targets import target_named

ModelMaker = Callable[..., ir.Model]

RNG = np.random.default_rng(11)
SAMPLES = {"x": RNG.standard_normal((40, 16)).astype(np.float32)}


@pytest.fixture
def quantiser(make_model: ModelMaker) -> Quantiser:
    """Three products; what "fragile[1]" reads has one entry that is 300 times the others."""
    outlier = np.ones(16, np.float32)
    outlier[3] = 300
    fragile = RNG.standard_normal((16, 16)).astype(np.float32)
    fragile[3] /= 300
    model = make_model(
        "g (float[N,16] x, float[16,16] a, float[16] s, float[16,16] b, float[16,5] c)"
        " => (float[N,5] y) {"
        "  p = MatMul(x, a) q = Relu(p) r = Mul(q, s) t = MatMul(r, b) u = Relu(t)"
        "  y = MatMul(u, c) }",
        a=RNG.standard_normal((16, 16)).astype(np.float32),
        s=outlier,
        b=fragile,
        c=RNG.standard_normal((16, 5)).astype(np.float32),
    )
    for node, name in zip(
        [node for node in model.graph if node.op_type == "MatMul"],
        ["first", "fragile[1]", "last"],
        strict=True,
    ):
        node.name = name
    prepared, _ = prepare(model)
    settings = QuantizeSettings(target="avx512_vnni", refine=False)
    return Quantiser(prepared, SAMPLES, target_named("avx512_vnni"), settings)


@pytest.fixture
def reference(quantiser: Quantiser) -> Reference:
    return Reference(quantiser.prepared, quantiser.batches())


def test_the_float_model_is_faithful_to_itself(quantiser: Quantiser, reference: Reference) -> None:
    assert reference.fidelity(quantiser.prepared) == Fidelity(0.0, 1.0)


def test_fidelity_is_the_error_as_a_share_of_the_variance(make_model: ModelMaker) -> None:
    model = make_model("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    other = make_model("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }")
    values = np.asarray([[1, 2], [4, 3]], np.float32)
    found = Reference(model, [{"x": values}]).fidelity(other)
    assert found.error == pytest.approx(4 * (values**2).mean() / values.var())
    assert found.agreement == 0
    assert found.sqnr_db == pytest.approx(-10 * np.log10(found.error))


def test_the_most_harmful_layer_comes_first(quantiser: Quantiser, reference: Reference) -> None:
    damages = sensitivities(quantiser, reference)
    assert {damage.layer for damage in damages} == {"first", "fragile[1]", "last"}
    assert damages[0].layer == "fragile[1]"
    assert damages[0].fidelity.error > 10 * damages[1].fidelity.error
    assert [d.fidelity.error for d in damages] == sorted(
        (d.fidelity.error for d in damages), reverse=True
    )
    assert sum(damage.macs_share for damage in damages) == pytest.approx(1)


def test_the_layer_that_ruins_the_outputs_alone_stays_in_float(
    quantiser: Quantiser, reference: Reference
) -> None:
    mixed = mix(quantiser, reference, Goal(sqnr_db=30))
    assert mixed.before.sqnr_db < 30 <= mixed.fidelity.sqnr_db
    assert mixed.is_met
    assert mixed.in_float == ("fragile[1]",)
    assert quantised_layers(quantiser, mixed.in_float) == ("first", "last")
    assert reference.fidelity(mixed.made.model) == mixed.fidelity


def test_a_goal_that_is_met_anyway_leaves_nothing_in_float_and_measures_no_layer(
    quantiser: Quantiser, reference: Reference
) -> None:
    everything = reference.fidelity(quantiser.make(quantiser.place()).model)
    mixed = mix(quantiser, reference, Goal(sqnr_db=everything.sqnr_db - 1))
    assert (mixed.in_float, mixed.float_macs, mixed.damages) == ((), 0, ())
    assert mixed.is_met
    assert mixed.fidelity == mixed.before


def test_out_of_reach_the_best_that_was_measured_is_the_result(
    quantiser: Quantiser, reference: Reference
) -> None:
    mixed = mix(quantiser, reference, Goal(sqnr_db=500))
    assert not mixed.is_met
    assert "fragile[1]" in mixed.in_float
    assert mixed.fidelity.error < mixed.before.error
    assert mixed.made.placement.weights


def test_no_more_macs_than_allowed_leave_the_integers(
    quantiser: Quantiser, reference: Reference
) -> None:
    goal = Goal(sqnr_db=500, float_macs=0.2)
    mixed = mix(quantiser, reference, goal)
    assert mixed.float_macs <= 0.2
    assert mixed.in_float in {(), ("last",)}
    assert mixed.fidelity.error <= mixed.before.error


def test_without_a_wish_the_outputs_become_as_good_as_the_budget_allows(
    quantiser: Quantiser, reference: Reference
) -> None:
    mixed = mix(quantiser, reference, Goal(float_macs=0.5))
    assert 0 < mixed.float_macs <= 0.5
    assert mixed.in_float[0] == "fragile[1]"
    assert mixed.fidelity.error < 0.1 * mixed.before.error


def test_agreement_counts_rows_whose_largest_entry_moved() -> None:
    goal = Goal(agreement=0.9)
    assert goal.is_met(Fidelity(0.5, 0.9))
    assert not goal.is_met(Fidelity(0.0, 0.89))
    assert not goal.is_met(Fidelity(0.0, None))
    assert not Goal().is_met(Fidelity(0.0, 1.0))
