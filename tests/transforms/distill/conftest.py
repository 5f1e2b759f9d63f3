"""A wide teacher, a narrow student, and samples that both take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

ModelMaker = Callable[..., ir.Model]
NetworkMaker = Callable[..., ir.Model]


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    return {"x": normal(600, 6, seed=11)}


@pytest.fixture
def network(make_model: ModelMaker) -> NetworkMaker:
    """Two layers with BatchNormalization between; ``hidden`` units, ``seed`` of the weights."""

    def make(
        hidden: int, seed: int, *, output: str = "logits", tail: str = "", batch: str = "N"
    ) -> ir.Model:
        made = f"{output} = Identity(z)" if not tail else f"{output} = {tail}(z)"
        return make_model(
            f"""g (float[{batch},6] x, float[{hidden},6] a, float[{hidden}] ab, float[{hidden}] s,
            float[{hidden}] t, float[{hidden}] m, float[{hidden}] v, float[4,{hidden}] b,
            float[4] bb) => (float[{batch},4] {output}) {{
              h = Gemm <transB = 1> (x, a, ab)
              n = BatchNormalization (h, s, t, m, v)
              r = Relu(n)
              z = Gemm <transB = 1> (r, b, bb)
              {made}
            }}""",
            a=normal(hidden, 6, seed=seed),
            ab=normal(hidden, seed=seed + 1),
            s=np.ones(hidden, np.float32),
            t=np.zeros(hidden, np.float32),
            m=np.zeros(hidden, np.float32),
            v=np.full(hidden, 7.0, np.float32),
            b=normal(4, hidden, seed=seed + 2, scale=4 / hidden**0.5),
            bb=normal(4, seed=seed + 3),
        )

    return make


@pytest.fixture
def teacher(network: NetworkMaker) -> ir.Model:
    return network(32, 1)


@pytest.fixture
def student(network: NetworkMaker) -> ir.Model:
    return network(8, 50)
