from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.quantize.judge import Judge

RNG = np.random.default_rng(0)
BATCHES = [{"x": RNG.normal(size=(4, 3)).astype(np.float32)} for _ in range(60)]


@pytest.fixture
def model(make_model) -> ir.Model:
    return make_model(
        """g (float[N,3] x, float[3,2] w) => (float[N,2] y, float[N,2] c, int64[2] s) {
            y = MatMul(x, w)
            z = Sub(y, y)
            c = Abs(z)
            s = Shape(y)
        }""",
        w=RNG.normal(size=(3, 2)).astype(np.float32),
    )


def with_weights(model: ir.Model, factor: float) -> ir.Model:
    copy = model.clone()
    value = copy.graph.initializers["w"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name="w")
    return copy


def test_the_error_is_a_share_of_the_variance_of_outputs_that_vary(model) -> None:
    judge = Judge(model, lambda: BATCHES)
    assert judge.error(model) == 0.0
    nearer, further = (judge.error(with_weights(model, factor)) for factor in (1.1, 0.5))
    assert nearer == pytest.approx(0.01, rel=0.1)
    assert further == pytest.approx(0.25, rel=0.1)


def test_only_the_first_held_out_samples_are_judged_by(model) -> None:
    read: list[int] = []

    def batches():
        for number, batch in enumerate(BATCHES):
            read.append(number)
            yield batch

    judge = Judge(model, batches)
    assert max(read) == 8 * 5 - 1
    spoiled = [BATCHES[n] if n % 5 == 4 else {"x": BATCHES[n]["x"] * 9} for n in range(60)]
    other = Judge(model, lambda: spoiled)
    assert other.error(with_weights(model, 1.1)) == judge.error(with_weights(model, 1.1))


def test_a_few_batches_all_judge(model) -> None:
    judge = Judge(model, lambda: BATCHES[:3])
    assert judge.error(with_weights(model, 1.1)) == pytest.approx(0.01, rel=0.2)
