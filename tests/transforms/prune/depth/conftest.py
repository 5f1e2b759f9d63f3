"""Small networks with blocks that can be removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

ModelMaker = Callable[..., ir.Model]
Residual = Callable[..., ir.Model]

BLOCKS = """g (float[N,3,8,8] x, float[8,3,3,3] s, float[8,8,3,3] a1, float[8,8,3,3] a2,
  float[8] a3, float[8,8,3,3] b1, float[8,8,3,3] b2, float[8] b3,
  float[4,8,1,1] h) => (float[N,4,8,8] y) {
  stem = Conv <pads = [1,1,1,1]> (x, s)
  r0 = Relu(stem)
  a = Conv <pads = [1,1,1,1]> (r0, a1)
  ar = Relu(a)
  a_out = Conv <pads = [1,1,1,1]> (ar, a2, a3)
  a_sum = Add(a_out, r0)
  r1 = Relu(a_sum)
  b = Conv <pads = [1,1,1,1]> (r1, b1)
  br = Relu(b)
  b_out = Conv <pads = [1,1,1,1]> (br, b2, b3)
  b_sum = Add(r1, b_out)
  r2 = Relu(b_sum)
  y = Conv(r2, h)
}"""


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    return {"x": normal(96, 3, 8, 8, seed=11)}


@pytest.fixture
def residual(make_model: ModelMaker) -> Residual:
    """Two residual blocks; ``a`` and ``b`` scale what each adds to what it passes on."""

    def make(a: float = 1.0, b: float = 1.0) -> ir.Model:
        weights = {"s": normal(8, 3, 3, 3, scale=0.3), "h": normal(4, 8, 1, 1, seed=1)}
        for seed, (name, scale) in enumerate({"a": a, "b": b}.items()):
            weights[f"{name}1"] = normal(8, 8, 3, 3, seed=2 + seed, scale=0.15)
            weights[f"{name}2"] = normal(8, 8, 3, 3, seed=4 + seed, scale=0.15 * scale)
            weights[f"{name}3"] = normal(8, seed=6 + seed)
        return make_model(BLOCKS, **weights)

    return make
