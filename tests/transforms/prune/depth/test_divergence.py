"""Divergence: zero for the same, nats for classes, all lost where shapes become others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from scipy.special import softmax

from trimton.transforms.prune.depth.divergence import Divergence

ModelMaker = Callable[..., ir.Model]

SAMPLES = {"x": np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)}


def test_classes_are_compared_in_nats(make_model: ModelMaker) -> None:
    graph = "g (float[N,4] x, float[4,3] w) => (float[N,3] logits) { logits = MatMul(x, w) }"
    weights = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    one, other = make_model(graph, w=weights), make_model(graph, w=weights * np.float32(0.5))
    divergence = Divergence(one, SAMPLES)
    p, q = (softmax(SAMPLES["x"] @ weights * factor, axis=1) for factor in (1.0, 0.5))
    assert divergence.of(one) == 0
    expected = float((p * np.log(p / q)).sum(axis=1).mean())
    assert divergence.of(other) == pytest.approx(expected, rel=1e-4)


def test_all_is_lost_where_an_output_gets_another_shape(make_model: ModelMaker) -> None:
    graph = (
        "g (float[N,4] x, float[4] w) => (float[a,b] y) "
        "{ h = Add(x, w) r = Relu(h) k = NonZero(r) y = Cast <to = 1> (k) }"
    )
    one = make_model(graph, w=np.zeros(4, np.float32))
    other = make_model(graph, w=np.ones(4, np.float32))
    assert Divergence(one, SAMPLES).of(other) == 1.0
