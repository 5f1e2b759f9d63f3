"""BatchNormalizations behind a cut normalise again what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.plugin.samples import load_samples
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.refit.taps import Taps
from trimton.transforms.report import Step

FASHION_RESNET = Path(__file__).parents[3] / "model_repository" / "fashion_resnet"
ModelMaker = Callable[..., ir.Model]
GRAPH = """g (float[N,3,8,8] x, float[16,3,3,3] a, float[16] s, float[16] t, float[16] m,
  float[16] v, float[12,16,3,3] b, float[12] s2, float[12] t2, float[12] m2, float[12] v2,
  float[4,12,1,1] c)
  => (float[N,4,4,4] y) {
  h = Conv(x, a)
  n = BatchNormalization(h, s, t, m, v)
  r = Relu(n)
  h2 = Conv(r, b)
  n2 = BatchNormalization(h2, s2, t2, m2, v2)
  r2 = Relu(n2)
  y = Conv(r2, c)
}"""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(make_model: ModelMaker) -> ir.Model:
    """Running statistics are those of another set of samples than the calibration's."""
    weights = {
        "a": normal(16, 3, 3, 3),
        "b": normal(12, 16, 3, 3, seed=1),
        "c": normal(4, 12, 1, 1),
    }
    for suffix, size in (("", 16), ("2", 12)):
        weights |= {f"s{suffix}": 1 + normal(size) ** 2, f"t{suffix}": normal(size, seed=2)}
        weights |= {f"m{suffix}": normal(size, seed=3), f"v{suffix}": 20 + normal(size) ** 2}
    return make_model(GRAPH, **weights)


SAMPLES = {"x": normal(80, 3, 8, 8, seed=9) + 0.3}


def pruned(model: ir.Model, **options: object) -> tuple[ir.Model, list[Step]]:
    settings = PruneSettings(ratio=0.5, multiple=1, refit=False, **options)  # type: ignore[arg-type]
    work, report = prune(model, settings, SAMPLES)
    return work, [step for step in report.steps if step.name == "statistics"]


def moments(model: ir.Model, name: str) -> tuple[np.ndarray, np.ndarray]:
    """By channel over all samples at once."""
    array = Taps(model, [name])(SAMPLES)[name].astype(np.float64)
    return array.mean(axis=(0, 2, 3)), array.std(axis=(0, 2, 3))


def array(model: ir.Model, node: ir.Node, index: int) -> np.ndarray:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def normalisations(model: ir.Model) -> Mapping[str, ir.Node]:
    nodes = (node for node in model.graph if node.op_type == "BatchNormalization")
    return {node.outputs[0].name or "": node for node in nodes}


def test_kept_channels_have_the_moments_that_they_had(make_model: ModelMaker) -> None:
    model = network(make_model)
    work, steps = pruned(model)
    kept = np.isin(
        array(model, normalisations(model)["n2"], 1), array(work, normalisations(work)["n2"], 1)
    )
    assert 0 < kept.sum() < 12
    for old, new in zip(moments(model, "n2"), moments(work, "n2"), strict=True):
        np.testing.assert_allclose(new, old[kept], rtol=1e-3, atol=1e-3)
    (step,) = steps
    assert step.detail["variance_ratio"] < 1  # fewer terms vary less


def test_what_no_cut_reaches_keeps_its_statistics(make_model: ModelMaker) -> None:
    model = network(make_model)
    work, steps = pruned(model)
    before, after = (normalisations(each)["n"] for each in (model, work))
    assert set(array(work, after, 3)) < set(array(model, before, 3))
    assert [step.detail["layer"] for step in steps] == [normalisations(work)["n2"].name]


def test_without_the_setting_or_samples_nothing_is_estimated(make_model: ModelMaker) -> None:
    model = network(make_model)
    work, steps = pruned(model, statistics=False)
    assert not steps
    assert set(array(work, normalisations(work)["n2"], 4)) < set(
        array(model, normalisations(model)["n2"], 4)
    )
    _, report = prune(model, PruneSettings(ratio=0.5, multiple=1))
    assert "statistics" not in {step.name for step in report.steps}


def test_a_channel_that_is_constant_on_the_samples_keeps_its_variance(
    make_model: ModelMaker,
) -> None:
    model = network(make_model)
    weight = model.graph.initializers["b"]
    assert weight.const_value is not None
    silent = weight.const_value.numpy().copy()
    silent[:] = 0
    weight.const_value = ir.tensor(silent, name="b")
    work, _ = pruned(model)
    node = normalisations(work)["n2"]
    assert np.isfinite(array(work, node, 3)).all()
    assert (array(work, node, 4) >= 20).all()


def test_a_trained_network_answers_as_before() -> None:
    model = load_model(FASHION_RESNET / "1" / "model.onnx")
    images = load_samples(str(FASHION_RESNET / "calibration.npz"), input_specs(model)).first(128)
    expected = answers(model, images.inputs)
    agreement = {}
    for does_estimate in (True, False):
        settings = PruneSettings(ratio=0.25, multiple=8, statistics=does_estimate, refit=False)
        work, _ = prune(model, settings, images.inputs)
        agreement[does_estimate] = float((answers(work, images.inputs) == expected).mean())
    assert agreement[True] > 0.8
    assert agreement[True] > 2 * agreement[False]


def answers(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    logits: np.ndarray = Taps(model, ["logits"])(inputs)["logits"]
    chosen: np.ndarray = logits.argmax(axis=1)
    return chosen
