"""Units of quantised networks come closer to the float ones, and stay what they were otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.reconstruct.float_form import float_forms
from trimton.transforms.distill.reconstruct.layers import array_of, quantised_layers
from trimton.transforms.distill.reconstruct.reconstructing import reconstruct
from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.weights.pairs import saturating_pairs

ModelMaker = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]

QUICK = ReconstructSettings(steps=60, threads=1)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture
def network(make_model: ModelMaker) -> ir.Model:
    """A residual block of convolutions between a first and a last layer."""
    return make_model(
        """g (float[N,3,8,8] x, float[8,3,3,3] a, float[8] ab, float[8,8,3,3] b, float[8] bb,
        float[8,8,3,3] c, float[8] cb, float[8,5] d, float[5] db) => (float[N,5] y) {
          h = Conv <pads = [1,1,1,1]> (x, a, ab)
          r = Relu(h)
          s = Conv <pads = [1,1,1,1]> (r, b, bb)
          t = Relu(s)
          u = Conv <pads = [1,1,1,1]> (t, c, cb)
          v = Add(u, r)
          w = Relu(v)
          p = GlobalAveragePool(w)
          f = Flatten(p)
          y = Gemm(f, d, db)
        }""",
        a=normal(8, 3, 3, 3, seed=1, scale=0.3),
        ab=normal(8, seed=2, scale=0.1),
        b=normal(8, 8, 3, 3, seed=3, scale=0.15),
        bb=normal(8, seed=4, scale=0.1),
        c=normal(8, 8, 3, 3, seed=5, scale=0.15),
        cb=normal(8, seed=6, scale=0.1),
        d=normal(8, 5, seed=7),
        db=normal(5, seed=8),
    )


@pytest.fixture
def samples() -> Samples:
    """Neighbouring places and channels are alike, as in images."""
    coarse = normal(160, 1, 4, 4, seed=11)
    return {"x": coarse.repeat(3, 1).repeat(2, 2).repeat(2, 3) + normal(160, 3, 8, 8, scale=0.3)}


def quantised(model: ir.Model, samples: Samples, target: str = "avx512_vnni") -> ir.Model:
    return quantize(model, samples, QuantizeSettings(target=target))[0]


def coarse(model: ir.Model, bits: int) -> ir.Model:
    """``model`` with weights in so many bits, rounded to nearest, and biases in their steps."""
    result, top = model.clone(), 2 ** (bits - 1) - 1
    for layer in quantised_layers(result)[0]:
        factor = np.float32(127 / top)
        scale = array_of(result, layer.scale) * factor
        changes = {
            layer.integers: np.round(array_of(result, layer.integers) / factor),
            layer.scale: scale,
        }
        if layer.bias is not None and layer.bias.scale is not None:
            changes[layer.bias.stored] = np.round(array_of(result, layer.bias.stored) / factor)
            changes[layer.bias.scale] = array_of(result, layer.activation or "") * scale
        for name, array in changes.items():
            value = result.graph.initializers[name]
            value.const_value = ir.tensor(array.astype(value.const_value.numpy().dtype), name=name)
    return result


def wiring(model: ir.Model) -> list[tuple[object, ...]]:
    return [
        (node.op_type, *(v and v.name for v in node.inputs), *(v.name for v in node.outputs))
        for node in model.graph
    ]


@pytest.mark.parametrize(
    ("unit", "learn_steps"), [("block", True), ("block", False), ("layer", False)]
)
def test_rounding_by_gradients_beats_rounding_to_nearest(
    network: ir.Model, samples: Samples, unit: str, learn_steps: bool
) -> None:
    nearest = coarse(quantised(network, samples), 4)
    settings = replace(QUICK, unit=unit, learn_steps=learn_steps)
    _, report = reconstruct(network, nearest, samples, settings)
    whole, *units = report.steps

    assert report.changed
    worth = 0.5 if unit == "block" else 1.0
    assert whole.detail["error"]["after"] < worth * whole.detail["error"]["before"]
    assert len(units) == (4 if unit == "layer" else 3)
    assert any(u.detail["turned_share"] > 0 for u in units)


def test_the_graph_stays_and_so_does_the_coarseness_of_weights(
    network: ir.Model, samples: Samples
) -> None:
    nearest = coarse(quantised(network, samples), 4)
    made, _ = reconstruct(network, nearest, samples, QUICK)

    assert wiring(made) == wiring(nearest)
    for name, value in nearest.graph.initializers.items():
        new = made.graph.initializers[name].const_value
        assert (new.dtype, new.shape) == (value.const_value.dtype, value.const_value.shape)
    for layer in quantised_layers(made)[0]:
        assert np.abs(array_of(made, layer.integers).astype(int)).max() <= 7


def test_biases_stand_in_steps_of_the_sums_they_are_added_to(
    network: ir.Model, samples: Samples
) -> None:
    made, report = reconstruct(network, coarse(quantised(network, samples), 4), samples, QUICK)
    moved = [u.detail["activation_steps"] for u in report.steps[1:]]
    layers = [x for x in quantised_layers(made)[0] if x.bias is not None]

    assert any(abs(factor - 1) > 1e-4 for steps in moved for factor in steps.values())
    assert layers
    for layer in layers:
        product = array_of(made, layer.activation) * array_of(made, layer.scale)
        np.testing.assert_array_equal(array_of(made, layer.bias.scale), product)


def test_no_pair_of_weights_saturates_that_did_not_before(
    network: ir.Model, samples: Samples
) -> None:
    int8 = quantised(network, samples, "avx2")
    made, _ = reconstruct(network, int8, samples, QUICK)

    for layer in quantised_layers(made)[0]:
        for model in (int8, made):
            weight = array_of(model, layer.integers)
            rows = (
                weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
                if weight.ndim == 4
                else weight.T
            )
            assert saturating_pairs(rows) == 0


def test_the_same_seed_gives_the_same_model(network: ir.Model, samples: Samples) -> None:
    nearest = coarse(quantised(network, samples), 4)
    settings = replace(QUICK, steps=30)
    first, second, other = (
        model_digest(reconstruct(network, nearest, samples, s)[0])
        for s in (settings, settings, replace(settings, seed=5))
    )

    assert first == second != other


def test_what_brings_nothing_changes_nothing(network: ir.Model, samples: Samples) -> None:
    nearest = coarse(quantised(network, samples), 4)
    tuned, _ = reconstruct(network, nearest, samples, QUICK)
    again, report = reconstruct(network, tuned, samples, replace(QUICK, steps=1))
    errors = report.steps[0].detail["error"]

    assert errors["after"] <= errors["before"] or model_digest(again) == model_digest(tuned)
    for unit in report.steps[1:]:
        assert unit.detail["kept"] == (
            unit.detail["error"]["after"] < unit.detail["error"]["before"]
        )


def test_a_unit_is_tuned_on_as_many_samples_as_there_is_room_for(
    network: ir.Model, samples: Samples
) -> None:
    nearest = coarse(quantised(network, samples), 4)
    limit = 60 * 4 * (3 + 8) * 64  # what 60 samples of the first unit take
    _, report = reconstruct(
        network, nearest, samples, replace(QUICK, steps=2, cache_limit_bytes=limit)
    )

    assert 40 <= report.steps[1].detail["samples"] <= 60


def test_a_fused_model_is_found_in_the_one_with_batch_normalisation(
    make_model: ModelMaker,
) -> None:
    model = make_model(
        """g (float[N,6] x, float[16,6] a, float[16] ab, float[16] s, float[16] t, float[16] m,
        float[16] v, float[4,16] b, float[4] bb) => (float[N,4] y) {
          h = Gemm <transB = 1> (x, a, ab)
          n = BatchNormalization (h, s, t, m, v)
          r = Relu(n)
          y = Gemm <transB = 1> (r, b, bb)
        }""",
        a=normal(16, 6, seed=1),
        ab=normal(16, seed=2),
        s=normal(16, seed=3) + 2,
        t=normal(16, seed=4),
        m=normal(16, seed=5),
        v=np.full(16, 3.0, np.float32),
        b=normal(4, 16, seed=6),
        bb=normal(4, seed=7),
    )
    samples = {"x": normal(200, 6, seed=8)}
    nearest = coarse(quantised(fuse(model)[0], samples), 4)
    _, report = reconstruct(model, nearest, samples, QUICK)

    assert report.changed


def test_an_equalised_model_is_found_in_the_float_one(network: ir.Model, samples: Samples) -> None:
    settings = QuantizeSettings(target="avx512_vnni", equalise=True)
    wide = network.clone()
    weight = wide.graph.initializers["b"]
    scales = np.exp2(np.arange(8) - 4).astype(np.float32)
    weight.const_value = ir.tensor(
        weight.const_value.numpy() * scales[:, None, None, None], name="b"
    )
    equalised, report = quantize(wide, samples, settings)
    assert any(step.name == "equalise" for step in report.steps)
    forms = list(float_forms(coarse(equalised, 4), wide, [{"x": samples["x"][:8]}]))
    expected = run(open_session(wide), samples)["y"]

    found = run(open_session(forms[0].model), samples)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_wrong_models_are_refused_in_a_sentence(
    network: ir.Model, samples: Samples, make_model: ModelMaker
) -> None:
    int8 = quantised(network, samples)
    other = network.clone()
    other.graph.initializers["b"].const_value = ir.tensor(normal(8, 8, 3, 3, seed=99), name="b")
    plain = make_model("g (float[N,3,8,8] x) => (float[N,3,8,8] y) {y = Relu(x)}")

    with pytest.raises(InputError, match="to tune is not quantised; give the float model first"):
        reconstruct(network, network, samples, QUICK)
    with pytest.raises(UnsupportedModelError, match="quantised already"):
        reconstruct(int8, int8, samples, QUICK)
    with pytest.raises(InputError, match=r"weight of layer .* is not that of the float model"):
        reconstruct(other, int8, samples, QUICK)
    with pytest.raises(InputError, match="output 'y' is"):
        reconstruct(plain, int8, samples, QUICK)


def test_wrong_samples_are_refused_in_a_sentence(network: ir.Model, samples: Samples) -> None:
    int8 = quantised(network, samples)

    with pytest.raises(InputError, match="there are no samples"):
        reconstruct(network, int8, {"x": samples["x"][:0]}, QUICK)
    with pytest.raises(InputError, match="cannot be run on the samples given"):
        reconstruct(network, int8, {"x": samples["x"][:, :, :4]}, QUICK)


@pytest.mark.parametrize(
    ("name", "value"), [("unit", "net"), ("steps", 0), ("held_out", 1.0), ("batch", 0)]
)
def test_wrong_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} {value}: must be"):
        ReconstructSettings(**{name: value})
