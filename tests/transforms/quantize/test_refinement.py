from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import constant_array
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.taps import Taps
from trimton.transforms.quantize import refinement
from trimton.transforms.quantize.encoding import LIMITS, Encoding
from trimton.transforms.quantize.layer_change import LayerChange
from trimton.transforms.quantize.placement import place
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.refinement import refine
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.targets import target_named
from trimton.transforms.quantize.weights import encode_weight
from trimton.transforms.quantize.weights.pairs import saturating_pairs
from trimton.transforms.quantize.weights.rows import row_order
from trimton.transforms.quantize.write import write

RNG = np.random.default_rng(0)
NETWORK = """g (float[N,4,10,10] x, float[16,4,3,3] w1, float[16] b1, float[16,1,3,3] w2,
                float[16] b2, float[16,16,1,1] w3, float[16] b3, float[16,8,3,3] w4,
                float[16,5] w5, float[5] b5) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<group=16, pads=[1,1,1,1]>(r, w2, b2)
    s = Relu(d)
    p = Conv(s, w3, b3)
    q = Add(p, r)
    t = Conv<group=2, strides=[2,2]>(q, w4)
    u = Relu(t)
    m = GlobalAveragePool(u)
    f = Flatten(m)
    y = Gemm(f, w5, b5)
}"""
LAYERS = 5


def normal(*shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return (RNG.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)


@pytest.fixture
def network(make_model) -> ir.Model:
    model = make_model(
        NETWORK,
        w1=normal(16, 4, 3, 3),
        b1=normal(16),
        w2=normal(16, 1, 3, 3),
        b2=normal(16),
        w3=normal(16, 16, 1, 1),
        b3=normal(16),
        w4=normal(16, 8, 3, 3),
        w5=normal(16, 5),
        b5=normal(5),
    )
    return prepare(model)[0]


def images(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Batches of four images whose pixels depend on their neighbours."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 4, 5, 5)).repeat(2, axis=2).repeat(2, axis=3)
    pixels = (coarse + 0.3 * rng.normal(size=coarse.shape)).astype(np.float32)
    return [{"x": pixels[start : start + 4]} for start in range(0, count, 4)]


def ranges(model: ir.Model, placement: Placement, share: float) -> dict[str, Encoding]:
    """Encodings whose range is ``share`` of the extremes."""
    found: dict[str, Encoding] = {}
    feed = {"x": np.concatenate([batch["x"] for batch in images(16, 1)])}
    names = {name for site in placement.activations for name in site.measured} - set(feed)
    measured = {**feed, **Taps(model, names)(feed)}
    for site in placement.activations:
        values = [measured[name] for name in site.measured]
        low = share * min(0.0, min(float(value.min()) for value in values))
        high = share * max(0.0, max(float(value.max()) for value in values))
        bottom, top = LIMITS[site.dtype]
        scale = np.asarray((high - low) / (top - bottom), np.float32)
        zero = np.asarray(np.rint(bottom - low / scale), site.dtype.numpy())
        found.update(dict.fromkeys(site.values, Encoding(site.dtype, scale, zero)))
    return found


def one_scale_each(placement: Placement) -> Placement:
    """Weights with one scale for all channels, so that rounding them does most of the harm."""
    return replace(placement, weights=tuple(replace(s, axis=None) for s in placement.weights))


def quantised(model: ir.Model, placement: Placement, *, share: float = 1.0) -> ir.Model:
    encodings = ranges(model, placement, share)
    weights = {
        site.value: encode_weight(_array(model, site.value), site) for site in placement.weights
    }
    copy = model.clone()
    write(copy, placement, encodings, weights)
    return copy


def _array(model: ir.Model, name: str) -> np.ndarray:
    array = constant_array(model.graph.initializers[name])
    assert array is not None
    return array


def error(original: ir.Model, other: ir.Model) -> float:
    """The mean squared error of the outputs on images that nothing was fitted to."""
    feed = {"x": np.concatenate([batch["x"] for batch in images(64, 99)])}
    exact, made = (run(open_session(model), feed)["y"] for model in (original, other))
    return float(np.square(made - exact).mean() / exact.var())


@pytest.mark.parametrize("target", ["avx2", "avx512_vnni"])
def test_refined_networks_are_closer_on_unseen_images(network, target) -> None:
    placement = one_scale_each(place(network, target_named(target)))
    model = quantised(network, placement)
    before = error(network, model)
    refined = refine(network, model, placement.weights, lambda: images(128, 2))
    assert {one.layer for one in refined} <= {site.layer for site in placement.weights}
    assert len(refined) >= 2
    assert all(one.after < one.before for one in refined)
    assert error(network, model) < 0.8 * before


def test_a_change_that_makes_the_outputs_worse_is_taken_back(network, monkeypatch) -> None:
    placement = place(network, target_named("avx2"))
    model = quantised(network, placement)
    before = {name: _array(model, name) for name in model.graph.initializers}

    def spoil(question, evidence) -> list[LayerChange]:
        integers = np.zeros_like(question.layer.integers())
        shift = np.ones((integers.shape[0], integers.shape[2]))
        return [LayerChange(question.layer, "spoiled", integers, shift, 1.0, 0.0)]

    monkeypatch.setattr(refinement, "changes", spoil)
    assert refine(network, model, placement.weights, lambda: images(16, 2)) == ()
    for name, array in before.items():
        assert np.array_equal(_array(model, name), array)


def test_biases_alone_take_away_the_mean_error(network) -> None:
    placement = place(network, target_named("avx512_vnni"))
    model = quantised(network, placement, share=0.6)
    before = error(network, model)
    integers = {name: _array(model, name) for name in model.graph.initializers}
    refine(network, model, placement.weights, lambda: images(64, 2), rounding=False)
    assert error(network, model) < 0.9 * before
    changed = {name for name in integers if not np.array_equal(integers[name], _array(model, name))}
    assert changed
    assert all(integers[name].dtype == np.int32 for name in changed)


def test_refined_weights_still_cannot_saturate(network) -> None:
    placement = place(network, target_named("avx2"))
    model = quantised(network, placement)
    before = {site.layer: _weight(model, site.layer) for site in placement.weights}
    refine(network, model, placement.weights, lambda: images(64, 2))
    bounded = [site for site in placement.weights if site.kernel is not None]
    assert len(bounded) == LAYERS - 1
    for site in bounded:
        weight = _weight(model, site.layer)
        assert not np.array_equal(weight, before[site.layer])
        assert saturating_pairs(row_order(site, weight.shape).rows(weight)) == 0


def test_a_single_batch_is_enough(network) -> None:
    placement = place(network, target_named("avx2"))
    model = quantised(network, placement)
    before = error(network, model)
    refine(network, model, placement.weights, lambda: images(4, 2))
    assert error(network, model) < 1.5 * before


def test_no_samples_are_refused(network) -> None:
    placement = place(network, target_named("avx2"))
    with pytest.raises(InputError, match="no samples"):
        refine(network, quantised(network, placement), placement.weights, list)


def test_batches_are_read_one_at_a_time(network) -> None:
    placement = place(network, target_named("avx2"))
    alive: list[int] = []

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for number, batch in enumerate(images(12, 2)):
            alive.append(number)
            yield batch

    first, second = quantised(network, placement), quantised(network, placement)
    refine(network, first, placement.weights, batches)
    refine(network, second, placement.weights, lambda: images(12, 2))
    assert set(alive) == {0, 1, 2}
    assert error(network, first) == error(network, second)


def _weight(model: ir.Model, layer: str) -> np.ndarray:
    node = next(node for node in model.graph if node.name == layer)
    source = node.inputs[1].producer() if node.inputs[1] is not None else None
    assert source is not None
    array = constant_array(source.inputs[0])
    assert array is not None
    return array
