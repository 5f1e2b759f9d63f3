"""Placement: what joins, what stays in float and why, and which values share an encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.quantize.integer_forms import to_integer_forms
from trimton.transforms.quantize.placement import place
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.sites import ActivationSite, Placement
from trimton.transforms.quantize.targets import TARGETS

RNG = np.random.default_rng(0)
CONV = RNG.normal(size=(8, 8, 1, 1)).astype(np.float32)
MATRIX = RNG.normal(size=(8, 8)).astype(np.float32)
X = "float[N,8,6,6] x, float[8,8,1,1] w"
Y = "float[N,8,H,W] y"


def placed(
    model: ir.Model, target: str = "avx512_vnni", exclude: tuple[str, ...] = ()
) -> Placement:
    prepared, _ = prepare(model)
    to_integer_forms(prepared)
    return place(prepared, TARGETS[target], exclude)


def site_of(placement: Placement, value: str) -> ActivationSite:
    (site,) = [site for site in placement.activations if value in site.values]
    return site


def values_of(placement: Placement) -> set[str]:
    return {value for site in placement.activations for value in site.values}


def test_a_value_of_a_float_operator_is_quantised_for_layers_only(make_model: Any) -> None:
    model = make_model(
        f"g ({X}) => ({Y}) {{ t = Tanh(x) c = Conv(t, w) s = Add(t, c) y = Conv(s, w) }}", w=CONV
    )

    placement = placed(model)

    assert values_of(placement) == {"t", "c", "s", "y"}
    assert placement.nodes == {"n1", "n3"}
    assert [(s.what, s.why) for s in placement.skipped] == [
        ("Tanh n0", "avx512_vnni has no 8-bit kernel for it"),
        ("Add n2", "it is not between 8-bit kernels, so in float it needs fewer conversions"),
    ]


def test_residual_branches_stay_in_integers(make_model: Any) -> None:
    model = make_model(
        f"g ({X}) => ({Y}) {{ a = Conv(x, w) r = Relu(a) c = Conv(r, w) s = Add(r, c) "
        f"t = Relu(s) y = Conv(t, w) }}",
        w=CONV,
    )

    placement = placed(model)

    assert placement.skipped == ()
    assert values_of(placement) == {"x", "r", "c", "t", "y"}
    assert site_of(placement, "r").bounds == (0.0, np.inf)


def test_what_no_layer_reads_in_integers_afterwards_stays_in_float(make_model: Any) -> None:
    model = make_model(f"g ({X}) => ({Y}) {{ a = Conv(x, w) q = Mul(a, a) y = Tanh(q) }}", w=CONV)

    assert placed(model).nodes == {"n0"}


def test_a_small_operand_that_broadcasts_is_quantised_for_the_product(make_model: Any) -> None:
    model = make_model(
        f"g ({X}) => ({Y}) {{ a = Conv(x, w) p = GlobalAveragePool(a) h = HardSigmoid(p) "
        f"s = Mul(a, h) y = Conv(s, w) }}",
        w=CONV,
    )

    placement = placed(model)

    assert "n3" in placement.nodes
    assert {"h", "s"} <= values_of(placement)


def test_moves_share_the_encoding_of_what_they_move(make_model: Any) -> None:
    model = make_model(
        f"g ({X}) => ({Y}) {{ a = Conv(x, w) m = MaxPool<kernel_shape=[2,2]>(a) "
        f"t = Transpose<perm=[0,1,3,2]>(m) y = Conv(t, w) }}",
        w=CONV,
    )

    site = site_of(placed(model), "t")

    assert site.values == ("a", "m", "t")
    assert site.measured == ("a",)


def test_inputs_of_a_concat_share_unless_a_bound_would_be_lost(make_model: Any) -> None:
    def model(second: str) -> ir.Model:
        made: ir.Model = make_model(
            f"g ({X}) => ({Y}) {{ a0 = Conv(x, w) a = Relu(a0) b0 = Conv(x, w) b = {second}(b0) "
            f"c = Concat<axis=2>(a, b) y = Conv(c, w) }}",
            w=CONV,
        )
        return made

    alike = site_of(placed(model("Relu")), "c")
    mixed = site_of(placed(model("Sigmoid")), "c")

    assert set(alike.values) == {"a", "b", "c"}
    assert alike.measured == ("c",)
    assert mixed.values == ("c",)


def test_scaling_by_a_positive_constant_keeps_the_integers(make_model: Any) -> None:
    model = make_model(
        f"g ({X}) => ({Y}) {{ a = Conv(x, w) k = Constant<value_float=4.0>() d = Div(a, k) "
        f"y = Conv(d, w) }}",
        w=CONV,
    )

    site = site_of(placed(model), "d")

    assert (site.source, site.factor, site.measured) == ("a", 0.25, ())


def test_a_clip_that_cuts_zero_off_is_no_range(make_model: Any) -> None:
    def nodes(low: float) -> frozenset[str]:
        model = make_model(
            f"g ({X}) => ({Y}) {{ l = Constant<value_float={low}>() h = Constant<value_float=6.0>()"
            f" a = Conv(x, w) c = Clip(a, l, h) y = Conv(c, w) }}",
            w=CONV,
        )
        return placed(model).nodes

    assert "n3" in nodes(0.0)
    assert "n3" not in nodes(0.5)


def attention(make_model: Any, width: int) -> ir.Model:
    """The products of a head of ``width`` columns, over rows of a number that is not known."""
    model: ir.Model = make_model(
        f"g (float[1,N,8] x, float[8,{width}] w) => (float[1,N,N] y)"
        "{ q = MatMul(x, w) k = MatMul(x, w) t = Transpose<perm=[0,2,1]>(k) y = MatMul(q, t) }",
        w=RNG.normal(size=(8, width)).astype(np.float32),
    )
    return model


def test_products_of_large_activations_become_integers(make_model: Any) -> None:
    placement = placed(attention(make_model, 64))

    assert placement.nodes == {"n0", "n1", "n2", "n3"}
    assert "y" not in values_of(placement), "the sums of a matrix product may stay in float"


@pytest.mark.parametrize(
    ("width", "target", "reason"),
    [
        (32, "avx512_vnni", "fewer than 64 columns or rows"),
        (64, "avx2", "no faster in 8 bits"),
    ],
)
def test_products_of_activations_that_do_not_pay_for_conversions_stay_in_float(
    make_model: Any, width: int, target: str, reason: str
) -> None:
    placement = placed(attention(make_model, width), target)

    assert placement.nodes == {"n0", "n1"}
    assert any(s.what == "MatMul n3" and reason in s.why for s in placement.skipped)


def test_tensorrt_gets_small_products_too(make_model: Any) -> None:
    assert "n3" in placed(attention(make_model, 32), "tensorrt").nodes


def test_a_product_with_a_bias_becomes_gemm(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8] x, float[8,8] w, float[8] b) => (float[N,8] y)"
        "{ p = MatMul(x, w) y = Add(b, p) }",
        w=MATRIX,
        b=np.ones(8, np.float32),
    )

    (site,) = placed(model).weights

    assert (site.value, site.axis, site.bias, site.activation) == ("w", 1, "b", "x")


def test_rows_of_a_large_table_are_looked_up_as_integers(make_model: Any) -> None:
    model = make_model(
        "g (int64[N,4] i, float[200,8] e, float[8,8] w) => (float[N,4,8] y)"
        "{ r = Gather(e, i) y = MatMul(r, w) }",
        e=RNG.normal(size=(200, 8)).astype(np.float32),
        w=MATRIX,
    )

    placement = placed(model)

    assert [(site.value, site.axis) for site in placement.weights] == [("e", 1), ("w", 1)]
    assert placement.nodes == {"n0", "n1"}


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ("v = Abs(w) y = Conv(x, v)", "its weight is computed"),
        ("d = Cast<to=11>(x) v = Cast<to=11>(w) c = Conv(d, v) y = Cast<to=1>(c)", "float32"),
        ("y = ConvTranspose(x, w)", "no 8-bit kernel"),
    ],
)
def test_a_layer_that_stays_in_float_says_why(make_model: Any, nodes: str, why: str) -> None:
    placement = placed(make_model(f"g ({X}) => ({Y}) {{ {nodes} }}", w=CONV))

    assert not placement.weights
    assert any(why in s.why for s in placement.skipped if s.what.startswith("Conv"))


def test_a_weight_that_layers_share_along_other_axes_gets_one_scale(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8] x, float[8,8] w) => (float[N,8] y)"
        "{ a = MatMul(x, w) y = Gemm<transB=1>(a, w) }",
        w=MATRIX,
    )

    assert {site.axis for site in placed(model).weights} == {None}


def test_exclusions_leave_nodes_in_float_and_must_fit(make_model: Any) -> None:
    model = make_model(f"g ({X}) => ({Y}) {{ a = Conv(x, w) y = Conv(a, w) }}", w=CONV)

    placement = placed(model, exclude=("n1",))

    assert placement.nodes == {"n0"}
    assert [(s.what, s.why) for s in placement.skipped] == [("Conv n1", "excluded by name")]
    with pytest.raises(InputError, match="no node is named 'conv\\*'"):
        placed(model, exclude=("conv*",))


def test_only_saturating_targets_name_the_order_of_sums(make_model: Any) -> None:
    model = make_model(f"g ({X}) => ({Y}) {{ y = Conv(x, w) }}", w=CONV)

    assert [site.kernel for site in placed(model, "avx2").weights] == ["conv"]
    assert [site.kernel for site in placed(model, "amx").weights] == [None]
