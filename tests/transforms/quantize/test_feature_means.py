"""Means of what layers read, against patches that are cut out one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.linear.layers import find_linear_layers
from trimton.transforms.prune.refit.features import rows
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.calibration import feeds
from trimton.transforms.quantize.feature_means import feature_means

ModelMaker = Callable[..., ir.Model]
RNG = np.random.default_rng(5)


def pictures(*shape: int) -> np.ndarray:
    return RNG.normal(1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("strides=[1,1]", 1),
        ("pads=[1,0,2,1], strides=[2,1]", 1),
        ('auto_pad="SAME_UPPER", strides=[2,2], group=2', 2),
        ("dilations=[2,1], group=4", 4),
    ],
)
def test_the_mean_patch_of_a_convolution(
    make_model: ModelMaker, attributes: str, groups: int
) -> None:
    model = make_model(
        f"g (float[N,4,H,W] x, float[8,{4 // groups},3,2] w) => (float[N,8,H2,W2] y)"
        f"{{ y = Conv<{attributes}>(x, w) }}",
        w=pictures(8, 4 // groups, 3, 2),
    )
    (layer,) = find_linear_layers(model).layers
    # The second and third have one shape and are cut at once, the first and last are not.
    batches = [pictures(n, 4, 7, width) for n, width in ((2, 6), (1, 9), (3, 9), (2, 5))]

    found = feature_means(model, [layer], [{"x": batch} for batch in batches])

    patches = [rows(layer.layer, batch, 10**6, RNG).features for batch in batches]
    mean = np.concatenate(patches).mean(axis=0).reshape(groups, -1)
    np.testing.assert_allclose(found[layer.name], mean, rtol=1e-5, atol=1e-6)


def test_the_mean_row_of_a_product_has_every_sample_once(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[4,3,5] x, float[5,2] w) => (float[4,3,2] y) { y = MatMul(x, w) }",
        w=pictures(5, 2),
    )
    samples = pictures(10, 3, 5)
    (layer,) = find_linear_layers(model).layers

    found = feature_means(model, [layer], feeds(model, {"x": samples}))

    np.testing.assert_allclose(found[layer.name][0], samples.mean(axis=(0, 1)), rtol=1e-5)


def test_corrected_biases_leave_no_mean_error_of_rounded_weights(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,4,8,8] x, float[6,4,3,3] w, float[6] b) => (float[N,6,H,W] y)"
        "{ y = Conv<pads=[1,1,1,1]>(x, w, b) }",
        w=pictures(6, 4, 3, 3),
        b=pictures(6),
    )
    samples = {"x": pictures(32, 4, 8, 8)}

    def mean_error(correct_bias: bool) -> float:
        settings = QuantizeSettings(target="avx512_vnni", correct_bias=correct_bias)
        quantised, report = quantize(model, samples, settings)
        assert correct_bias == any(step.name == "correct-bias" for step in report.steps)
        return float(np.abs(mean_output(quantised, samples) - mean_output(model, samples)).max())

    assert mean_error(correct_bias=True) < 0.25 * mean_error(correct_bias=False)


def mean_output(model: ir.Model, samples: dict[str, np.ndarray]) -> np.ndarray:
    (output,) = run(open_session(model), samples).values()
    return output.mean(axis=(0, 2, 3))
