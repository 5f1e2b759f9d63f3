"""One pass over the samples."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.quantize.calibration import Histogram, calibrate, feeds
from trimton.transforms.quantize.encoding import Array
from trimton.transforms.quantize.sites import ActivationSite

ModelMaker = Callable[..., ir.Model]


def site(*names: str) -> ActivationSite:
    return ActivationSite(names, names, ir.DataType.UINT8)


@pytest.fixture
def relu(make_model: ModelMaker) -> ir.Model:
    """Neg is exact whatever the batch, so every difference is the calibration's."""
    return make_model(
        "g (float[N,C,W] x) => (float[N,C,W] y) {"
        "  minus = Neg(x)  kept = Relu(minus)  y = Transpose<perm=[0,2,1]>(kept) }"
    )


SAMPLES = np.random.default_rng(3).standard_normal((12, 5, 1000)).astype(np.float32)


def histograms(model: ir.Model, samples: Array, batch: int, stride: int) -> dict[str, Histogram]:
    sites = [site("x", "kept"), site("minus")]
    return calibrate(model, sites, feeds(model, {"x": samples}, batch), stride=stride)


@pytest.mark.parametrize("stride", [1, 17])
@pytest.mark.parametrize("batch", [1, 5, 12])
def test_histograms_do_not_depend_on_the_size_of_batches(
    relu: ir.Model, batch: int, stride: int
) -> None:
    expected = histograms(relu, SAMPLES, 3, stride)
    found = histograms(relu, SAMPLES, batch, stride)
    assert set(found) == {"x", "kept", "minus"}
    for name, histogram in expected.items():
        assert np.array_equal(found[name].counters, histogram.counters)
        assert np.array_equal(found[name].extremes, histogram.extremes)


def test_counters_do_not_depend_on_the_order_of_samples(relu: ir.Model) -> None:
    expected = histograms(relu, SAMPLES, 4, 17)["kept"]
    found = histograms(relu, SAMPLES[::-1], 4, 17)["kept"]
    assert np.array_equal(found.counters, expected.counters)
    assert np.array_equal(found.extremes, expected.extremes[::-1])


def test_what_a_value_is_like_is_what_the_model_computes(relu: ir.Model) -> None:
    found = histograms(relu, SAMPLES, 4, 1)
    kept = np.maximum(-SAMPLES, 0)
    assert (found["kept"].minimum, found["kept"].maximum) == (0, kept.max())
    assert found["kept"].count == SAMPLES.size
    zeros = found["kept"].bins()
    assert zeros.count[zeros.high < 1e-30].sum() == (kept == 0).sum()


def test_batches_may_differ_in_size_and_shape(relu: ir.Model) -> None:
    shapes = [(1, 5, 3), (4, 2, 7), (2, 1, 1)]
    batches = [{"x": np.full(shape, -i, np.float32)} for i, shape in enumerate(shapes)]
    found = calibrate(relu, [site("kept")], batches)["kept"]
    assert found.count == 15 + 56 + 2
    assert found.extremes.tolist() == [[0, 0]] + [[1, 1]] * 4 + [[2, 2]] * 2


def test_progress_counts_samples_and_ends_with_all_of_them(relu: ir.Model) -> None:
    seen: list[int] = []
    calibrate(relu, [site("kept")], feeds(relu, {"x": SAMPLES}, 5), progress=seen.append)
    assert seen == [5, 10, 12]


def test_memory_does_not_grow_with_the_samples(relu: ir.Model) -> None:
    def generated(count: int) -> Iterator[dict[str, Array]]:
        for _ in range(count):
            yield {"x": np.ones((4, 8, 4096), np.float32)}

    def peak(count: int) -> int:
        tracemalloc.start()
        calibrate(relu, [site("x", "minus", "kept")], generated(count))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(1)
    one_batch = 4 * 8 * 4096 * 4
    assert peak(64) < peak(8) + one_batch


def test_a_fixed_batch_gets_every_sample(make_model: ModelMaker) -> None:
    model = make_model("g (float[4,2] x) => (float[4,2] y) { y = Relu(x) }")
    samples = np.arange(20, dtype=np.float32).reshape(10, 2)
    batches = list(feeds(model, {"x": samples}))
    assert [len(feed["x"]) for feed in batches] == [4, 4, 4]
    assert set(np.concatenate([feed["x"] for feed in batches])[:, 0]) == set(samples[:, 0])
    assert calibrate(model, [site("y")], batches)["y"].maximum == 19


def test_samples_that_fill_up_a_fixed_batch_count_once(make_model: ModelMaker) -> None:
    fixed = make_model("g (float[4,2] x) => (float[4,2] y) { y = Relu(x) }")
    free = make_model("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    samples = {"x": np.arange(20, dtype=np.float32).reshape(10, 2)}
    found = calibrate(fixed, [site("y")], feeds(fixed, samples))["y"]
    expected = calibrate(free, [site("y")], feeds(free, samples))["y"]
    assert np.array_equal(found.counters, expected.counters)
    assert np.array_equal(found.extremes, expected.extremes)


def test_a_bad_sample_in_a_filled_up_batch_is_named(make_model: ModelMaker) -> None:
    model = make_model("g (float[4,2] x) => (float[4,2] y) { logs = Log(x) y = Relu(logs) }")
    samples = np.ones((10, 2), np.float32)
    samples[9, 1] = 0
    with pytest.raises(InputError, match="NaN or infinite on sample 9"):
        calibrate(model, [site("logs")], feeds(model, {"x": samples}))


def test_too_few_samples_for_a_fixed_batch_are_refused(make_model: ModelMaker) -> None:
    model = make_model("g (float[4,2] x) => (float[4,2] y) { y = Relu(x) }")
    with pytest.raises(InputError, match="given are 3; the model takes 4 at once"):
        list(feeds(model, {"x": np.ones((3, 2), np.float32)}))


def test_an_input_without_samples_is_named(relu: ir.Model) -> None:
    with pytest.raises(InputError, match="no array for the input 'x'"):
        list(feeds(relu, {"other": SAMPLES}))


def test_no_samples_are_refused(relu: ir.Model) -> None:
    with pytest.raises(InputError, match="no samples to calibrate with"):
        calibrate(relu, [site("kept")], [])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_named(relu: ir.Model, bad: float) -> None:
    samples = SAMPLES.copy()
    samples[7, 2, 2] = bad
    with pytest.raises(InputError, match=r"input 'x' holds NaN or Inf \(first in sample 7\)"):
        calibrate(relu, [site("kept")], feeds(relu, {"x": samples}, 5))


def test_a_value_that_is_not_finite_is_named_with_its_sample(make_model: ModelMaker) -> None:
    model = make_model("g (float[N,2] x) => (float[N,2] y) { logs = Log(x) y = Relu(logs) }")
    samples = np.ones((9, 2), np.float32)
    samples[5, 1] = 0
    with pytest.raises(
        InputError, match="value 'logs' of the model is NaN or infinite on sample 5"
    ):
        calibrate(model, [site("logs")], feeds(model, {"x": samples}, 2))


def test_samples_that_do_not_fit_the_model_are_refused(make_model: ModelMaker) -> None:
    model = make_model("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    with pytest.raises(InputError, match="cannot be run on the samples given"):
        calibrate(model, [site("y")], [{"x": np.ones((2, 3), np.float32)}])


def test_a_model_with_custom_operators_is_refused(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,2] x) => (float[N,2] y) { y = my.domain.Strange(x) }",
        domains=', "my.domain" : 1',
    )
    with pytest.raises(UnsupportedModelError, match=r"my\.domain::Strange"):
        calibrate(model, [site("y")], [{"x": np.ones((2, 2), np.float32)}])
