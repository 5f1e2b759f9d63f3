"""If, Loop and Scan: values as ONNX Runtime has them, gradients along what was computed."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter import OnnxModule

RNG = np.random.default_rng(0)
W = RNG.standard_normal((3, 3)).astype(np.float32)
V = RNG.standard_normal((3, 3)).astype(np.float32)

BRANCHES = """
    z = If (c) <
        then_branch = yes () => (float[N,3] t) {t0 = MatMul(x, w) t = Tanh(t0)},
        else_branch = no () => (float[N,3] e) {e = MatMul(x, v)}
    >
"""


def x_of(rows: int) -> np.ndarray:
    return RNG.standard_normal((rows, 3)).astype(np.float32)


def agree(module: OnnxModule, model, in_runtime, feeds) -> torch.Tensor:
    z = module({name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()})["z"]
    np.testing.assert_allclose(z.detach(), in_runtime(model, feeds)["z"], rtol=1e-5, atol=1e-6)
    return z


def learned(module: OnnxModule, z: torch.Tensor) -> set[str]:
    module.zero_grad(set_to_none=True)
    z.sum().backward()
    return {name for name, weight in module.weights() if weight.grad is not None}


def test_a_condition_on_shapes_is_decided_for_each_shape(parse, in_runtime) -> None:
    text = f"g (float[N,3] x) => (float[N,3] z) {{s = Size(x) c = Equal(s, twelve) {BRANCHES} }}"
    model = parse(text, w=W, v=V, twelve=np.array(12, np.int64))
    module = OnnxModule(model)
    for rows, taken in ((4, "w"), (2, "v"), (4, "w")):
        z = agree(module, model, in_runtime, {"x": x_of(rows)})
        assert learned(module, z) == {taken}


def test_a_condition_on_data_is_decided_in_each_run(parse, in_runtime) -> None:
    text = f"g (float[N,3] x, bool c) => (float[N,3] z) {{ {BRANCHES} }}"
    model = parse(text, w=W, v=V)
    module = OnnxModule(model)
    for condition, taken in ((True, "w"), (False, "v"), (True, "w")):
        z = agree(module, model, in_runtime, {"x": x_of(2), "c": np.array(condition)})
        assert learned(module, z) == {taken}


def test_the_output_of_a_decided_branch_can_be_replaced(parse) -> None:
    text = f"g (float[N,3] x) => (float[N,3] z) {{s = Size(x) c = Equal(s, twelve) {BRANCHES} }}"
    module = OnnxModule(parse(text, w=W, v=V, twelve=np.array(12, np.int64)))
    x = torch.from_numpy(x_of(4))
    for _ in range(2):
        made = module({"x": x}, replace={"z": torch.zeros_like})["z"]
        assert not made.any()


def test_a_loop_carries_gradients_through_its_turns(parse, in_runtime) -> None:
    text = """g (float[N,3] x, int64 turns) => (float[N,3] z, float[K,N,3] all) {
        z, all = Loop (turns, , x) <
            body = b (int64 i, bool c, float[N,3] h) => (bool go, float[N,3] n, float[N,3] seen) {
                p = MatMul(h, w) n = Tanh(p) seen = Identity(n) go = Identity(c)
            }
        >
    }"""
    model = parse(text, w=W)
    module = OnnxModule(model)
    for turns in (3, 1, 2):
        feeds = {"x": x_of(2), "turns": np.array(turns, np.int64)}
        z = agree(module, model, in_runtime, feeds)
        assert learned(module, z) == {"w"}
        h, twin = torch.from_numpy(feeds["x"]), torch.from_numpy(W).requires_grad_()
        for _ in range(turns):
            h = torch.tanh(h @ twin)
        h.sum().backward()
        torch.testing.assert_close(module.get_parameter("w").grad, twin.grad)


def test_a_scan_runs_backwards_over_its_input(parse, in_runtime) -> None:
    text = """g (float[3] h, float[T,3] x) => (float[3] last, float[T,3] z) {
        last, z = Scan <
            num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
            body = b (float[3] h0, float[3] x0) => (float[3] h1, float[3] y) {
                p = MatMul(h0, w) a = Add(p, x0) h1 = Tanh(a) y = Identity(h1)
            }
        > (h, x)
    }"""
    model = parse(text, w=W)
    module = OnnxModule(model)
    z = agree(module, model, in_runtime, {"h": x_of(1)[0], "x": x_of(5)})
    assert learned(module, z) == {"w"}


def test_a_plan_with_a_branch_does_not_hold_what_it_was_made_with(parse) -> None:
    text = f"""g (float[N,3] x0, bool c) => (float[N,3] z) {{
        x1 = Tanh(x0)  x = Neg(x1)  {BRANCHES}
    }}"""
    module = OnnxModule(parse(text, w=W, v=V))
    seen: list[weakref.ref[torch.Tensor]] = []

    def watch(value: torch.Tensor) -> torch.Tensor:
        seen.append(weakref.ref(value))
        return value

    feeds = {"x0": torch.zeros(2, 3), "c": torch.tensor(True)}
    with torch.no_grad():
        module(feeds, replace={"x1": watch, "x": watch})
    assert [ref() for ref in seen] == [None, None]


def test_an_operator_without_gradient_in_a_body_is_named(parse) -> None:
    text = """g (float[3,3] x, bool c) => (float z) {
        z = If (c) <
            then_branch = yes () => (float t) {t0 = MatMul(x, w) t = Det(t0)},
            else_branch = no () => (float e) {e = ReduceSum<keepdims = 0>(x)}
        >
    }"""
    with pytest.raises(UnsupportedModelError, match="Det "):
        OnnxModule(parse(text, w=W))
