"""Random gradients have the curvature of the losses as their covariance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Generator, Tensor

from trimton.transforms.distill.curvature import SCORES, gradient_draws
from trimton.transforms.distill.kinds import KINDS
from trimton.transforms.distill.losses import OUTPUT_LOSSES

ModelMaker = Callable[..., ir.Model]
DRAWS = 20_000


def outputs_of(kind: str) -> Tensor:
    """One sample with values that suit ``kind``."""
    raw = torch.tensor([0.3, -1.2, 0.8, 0.1])
    suiting = {"probabilities": raw.softmax(0), "chances": raw.sigmoid()}
    return suiting.get(kind, raw)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_scores_have_the_covariance_that_the_loss_has_as_its_hessian(kind: str) -> None:
    output = outputs_of(kind)
    variance = float(output.var(correction=0))
    along_last = kind not in {"chances", "values", "robust-values"}

    def total(student: Tensor) -> Tensor:
        loss = OUTPUT_LOSSES[kind](student[None], output[None], 1.0, variance)
        return loss * (1 if along_last else len(output))

    hessian = torch.autograd.functional.hessian(total, output)
    random = Generator().manual_seed(1)
    repeated = output.expand(DRAWS, len(output))
    scores = SCORES[kind](repeated, random)
    covariance = scores.T @ scores / DRAWS

    torch.testing.assert_close(
        covariance, hessian, rtol=0.1, atol=0.05 * float(hessian.abs().max())
    )


def test_the_mean_of_draws_tells_what_a_small_change_costs(make_model: ModelMaker) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "a": rng.standard_normal((5, 6)).astype(np.float32) / 2,
        "b": rng.standard_normal((6, 3)).astype(np.float32),
    }
    model = make_model(
        "g (float[N,5] x, float[5,6] a, float[6,3] b) => (float[N,3] y)"
        "{ h = MatMul(x, a) t = Tanh(h) z = MatMul(t, b) y = Softmax <axis = -1> (z) }",
        **weights,
    )
    x = rng.standard_normal((64, 5)).astype(np.float32)
    change = 0.01 * rng.standard_normal((5, 6))

    def answers(a: np.ndarray) -> np.ndarray:
        scores = np.tanh(x.astype(np.float64) @ a) @ weights["b"]
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)

    before, after = answers(weights["a"]), answers(weights["a"] + change)
    divergence = float((before * np.log(before / after)).sum(axis=1).mean())
    draws = gradient_draws(model, {"a"}, {"t"}, [{"x": x}] * 3000, seed=0)
    effects = [0.5 * float((draw["a"] * change).sum()) ** 2 for draw in draws]

    assert np.mean(effects) == pytest.approx(divergence, rel=0.1)


def test_draws_are_a_function_of_the_seed(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,4] x, float[4,3] w) => (float[N,3] y) { y = MatMul(x, w) }",
        w=np.eye(4, 3, dtype=np.float32),
    )
    feeds = [{"x": np.ones((2, 4), np.float32)}]

    def draw(seed: int) -> np.ndarray:
        (found,) = gradient_draws(model, {"w"}, (), feeds, seed=seed)
        return found["w"]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.abs(draw(1) - draw(2)).max() > 0
