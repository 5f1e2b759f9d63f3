"""The module as a whole: same values as ONNX Runtime, weights that learn and are written back."""

from __future__ import annotations

import weakref

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.graph.digest import model_digest

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 1, 28, 28)).astype(np.float32)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def train(module: OnnxModule, steps: int = 3) -> None:
    optimiser = torch.optim.SGD(module.parameters(), 0.01)
    for _ in range(steps):
        loss = F.cross_entropy(
            module({"input": torch.from_numpy(IMAGES)})["logits"], torch.arange(4)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_an_untrained_module_gives_the_same_model_back(fashion_resnet: ir.Model) -> None:
    module = OnnxModule(fashion_resnet, check={"input": IMAGES})
    assert model_digest(module.to_onnx()) == model_digest(fashion_resnet)


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_what_was_trained_is_what_onnx_runtime_computes(
    fashion_resnet: ir.Model, in_runtime, batch_norm
) -> None:
    before = model_digest(fashion_resnet)
    module = OnnxModule(fashion_resnet, batch_norm=batch_norm).train()
    train(module)
    written = module.to_onnx()
    with torch.no_grad():
        here = module.eval()({"input": torch.from_numpy(IMAGES)})["logits"].numpy()
    there = in_runtime(written, {"input": IMAGES})["logits"]
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-4 * np.abs(there).max())
    assert model_digest(fashion_resnet) == before != model_digest(written)


def test_every_weight_of_a_layer_learns_and_running_statistics_do_not(
    fashion_resnet: ir.Model,
) -> None:
    module = OnnxModule(fashion_resnet)
    names = {name for name, _ in module.weights()}
    statistics = {n for n in fashion_resnet.graph.initializers if "running" in n}
    assert names == set(fashion_resnet.graph.initializers) - statistics
    train(module, steps=1)
    assert all(weight.grad is not None for _, weight in module.weights())


@pytest.mark.parametrize(("batch_norm", "moves"), [("train", True), ("frozen", False)])
def test_running_statistics_move_only_where_normalisation_is_trained(
    fashion_resnet: ir.Model, batch_norm, moves: bool
) -> None:
    module = OnnxModule(fashion_resnet, batch_norm=batch_norm).train()
    with torch.no_grad():
        module({"input": torch.from_numpy(IMAGES)})
    old = fashion_resnet.graph.initializers["stem_bn.running_mean"].const_value
    new = module.to_onnx().graph.initializers["stem_bn.running_mean"].const_value
    assert (not np.array_equal(old.numpy(), new.numpy())) is moves


def test_any_value_can_be_asked_for_and_only_its_part_is_computed(fashion_resnet) -> None:
    module = OnnxModule(fashion_resnet).eval()
    made = module({"input": torch.from_numpy(IMAGES)}, ["stem.relu", "input", "stem.weight"])
    assert list(made) == ["stem.relu", "input", "stem.weight"]
    expected = F.relu(
        F.batch_norm(
            F.conv2d(made["input"], made["stem.weight"], padding=1),
            *(module.get_buffer(f"stem_bn/running_{name}") for name in ("mean", "var")),
            *(module.get_parameter(f"stem_bn/{name}") for name in ("weight", "bias")),
        )
    )
    torch.testing.assert_close(made["stem.relu"], expected)
    made["stem.relu"].sum().backward()
    assert module.get_parameter("classifier/weight").grad is None


def test_values_inputs_and_weights_can_be_replaced(parse) -> None:
    model = parse(
        "g (float[N,3] x) => (float[N,2] z) {y = MatMul(x, w) z = Relu(y)}", w=floats(3, 2)
    )
    module = OnnxModule(model)
    x = torch.from_numpy(floats(5, 3))
    w = module.get_parameter("w")
    replace = {"x": torch.abs, "w": lambda w: 2 * w, "y": lambda y: y + 1}
    for _ in range(2):  # planned, then repeated
        z = module({"x": x}, replace=replace)["z"]
        torch.testing.assert_close(z, F.relu(x.abs() @ (2 * w) + 1))
    torch.testing.assert_close(module({"x": x})["z"], F.relu(x @ w))


def test_an_output_that_nothing_else_reads_can_be_replaced(parse) -> None:
    text = "g (float[4] x) => (float[2] a, float[2] b) {a, b = Split<axis = 0>(x)}"
    module = OnnxModule(parse(text))
    for _ in range(2):
        made = module({"x": torch.arange(4.0)}, ["a"], replace={"b": torch.neg, "x": torch.neg})
        torch.testing.assert_close(made["a"], torch.tensor([-0.0, -1.0]))


def test_running_does_not_keep_what_no_gradient_needs(parse) -> None:
    """In the first run, which plans, and in later ones."""
    count = 8
    steps = " ".join(f"v{i + 1} = Add(v{i}, one)" for i in range(count))
    text = f"g (float[N] v0) => (float[N] v{count}) {{ {steps} }}"
    module = OnnxModule(parse(text, one=np.float32(1)))
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(value: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(value))
        return value

    for _ in range(2):
        module({"v0": torch.zeros(3)}, replace={f"v{i + 1}": watch for i in range(count)})
        assert most <= 2


def test_a_shared_weight_is_one_parameter_and_gathers_both_gradients(parse) -> None:
    model = parse(
        "g (float[N,3] x) => (float[N,3] z) {y = MatMul(x, w) z = MatMul(y, w)}", w=floats(3, 3)
    )
    module = OnnxModule(model)
    ((name, weight),) = module.weights()
    x = torch.from_numpy(floats(5, 3))
    module({"x": x})["z"].sum().backward()
    twin = weight.detach().clone().requires_grad_()
    (x @ twin @ twin).sum().backward()
    assert name == "w"
    torch.testing.assert_close(weight.grad, twin.grad)


def test_numbers_of_a_formula_and_masks_are_no_weights(parse) -> None:
    text = """g (float[2,3] x) => (float[2,3] z) {
        a = Add(x, three)  b = Clip(a, low, high)  c = Mul(x, b)  d = Div(c, six)
        e = Mul(d, gamma)  f = Add(e, mask)  z = Pow(f, two)
    }"""
    constants = {"three": 3, "low": 0, "high": 6, "six": 6, "two": 2}
    model = parse(
        text,
        gamma=floats(3),
        mask=np.array([0, -1e9, 0], np.float32),
        **{name: np.array(number, np.float32) for name, number in constants.items()},
    )
    assert [name for name, _ in OnnxModule(model).weights()] == ["gamma"]


def test_the_bias_of_a_single_output_learns(parse) -> None:
    text = "g (float[N,3] x) => (float[N,1] z) {y = MatMul(x, w) b = Add(bias, y) z = Mul(b, two)}"
    numbers = {"bias": np.array([0.5], np.float32), "two": np.array([2], np.float32)}
    module = OnnxModule(parse(text, w=floats(3, 1), **numbers))
    assert [name for name, _ in module.weights()] == ["w", "bias"]


def test_a_weight_learns_through_nodes_that_move_it(parse) -> None:
    text = """g (float[N,3] x) => (float[N,2] z) {
        t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t)  u = Unsqueeze(b, zero)  z = Add(y, u)
    }"""
    model = parse(text, w=floats(2, 3), b=floats(2), zero=np.array([0], np.int64))
    module = OnnxModule(model)
    module({"x": torch.from_numpy(floats(5, 3))})["z"].sum().backward()
    assert {name: w.grad is not None for name, w in module.weights()} == {"w": True, "b": True}


def test_shapes_are_planned_anew_for_new_sizes(parse, in_runtime) -> None:
    text = """g (float[N,M] x) => (float[K,2] z) {
        s = Shape(x)  n = Gather(s, zero)  h = Div(n, two)  u = Unsqueeze(h, zeros)
        all = Concat<axis = 0>(u, minus)  r = Reshape(x, all)  z = MatMul(r, w)
    }"""
    model = parse(
        text,
        w=floats(6, 2),
        zero=np.array(0, np.int64),
        two=np.array(2, np.int64),
        zeros=np.array([0], np.int64),
        minus=np.array([6], np.int64),
    )
    module = OnnxModule(model)
    for rows in (2, 4, 2, 8, 4):
        x = floats(rows, 3)
        made = module({"x": torch.from_numpy(x)})["z"].detach().numpy()
        np.testing.assert_allclose(made, in_runtime(model, {"x": x})["z"], rtol=1e-5)


def test_a_converted_module_computes_in_its_new_type(parse) -> None:
    model = parse(
        "g (float[N,3] x) => (float[N,3] z) {y = Mul(x, half) z = Add(y, b)}",
        half=np.array(0.5, np.float32),
        b=floats(3),
    )
    module = OnnxModule(model)
    x = torch.ones(1, 3)
    module({"x": x})
    z = module.double()({"x": x.double()})["z"]
    assert z.dtype == torch.float64
    assert module.to_onnx().graph.initializers["b"].const_value.dtype == ir.DataType.FLOAT


def test_an_operator_without_gradient_on_the_path_is_named(parse) -> None:
    text = "g (float[2,3] x) => (double[1] d) {y = Mul(x, w) [knot] d = Det(y)}"
    model = parse(text.replace(" [knot]", ""), w=floats(3))
    model.graph[1].name = "knot"
    with pytest.raises(UnsupportedModelError, match=r"Det \(node 'knot'\) stands between weights"):
        OnnxModule(model)
    features = OnnxModule(model, outputs=["y"])({"x": torch.ones(2, 3)})
    assert list(features) == ["y"]


def test_operators_without_a_function_run_in_onnx_runtime_off_the_path(parse, in_runtime) -> None:
    text = """g (float[3,3] x, float[N,3] y) => (float[N,3] z) {
        d = Det(x)  s = Mul(y, w)  z = Mul(s, d)
    }"""
    model = parse(text, w=floats(3))
    module = OnnxModule(model)
    feeds = {"x": floats(3, 3), "y": floats(2, 3)}
    z = module({name: torch.from_numpy(array) for name, array in feeds.items()})["z"]
    np.testing.assert_allclose(z.detach(), in_runtime(model, feeds)["z"], rtol=1e-5)
    z.sum().backward()
    assert module.get_parameter("w").grad is not None
    with pytest.raises(UnsupportedModelError, match="Det"):
        module({"x": torch.ones(3, 3, requires_grad=True), "y": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float[2] x) => (float[2] z) {s = SequenceConstruct(x) z = SequenceAt(s, i)}", "maps"),
        (
            "g (float[1,1,2,2,2,2] x) => (float[1,1,2,2,2,2] z) {z = Conv(x, x)}",
            r"Conv \(node ''\) is of a form that has no function here \(4\)",
        ),
        ("g (float[3] x) => (float[3] z) {z = custom.Op(x)}", r"Op of custom .* no function here"),
    ],
)
def test_what_cannot_be_run_is_named(parse, text: str, message: str) -> None:
    model = parse(text, i=np.array(0, np.int64))
    model.opset_imports["custom"] = 1
    module = OnnxModule(model)
    sizes = [int(size) for size in model.graph.inputs[0].shape]
    with pytest.raises(UnsupportedModelError, match=message):
        module({"x": torch.zeros(sizes)})


def test_names_and_samples_that_do_not_suit_are_named(fashion_resnet: ir.Model) -> None:
    module = OnnxModule(fashion_resnet)
    with pytest.raises(InputError, match="lack 'input'"):
        module({})
    with pytest.raises(InputError, match="no value 'nothing'"):
        module({"input": torch.zeros(1, 1, 28, 28)}, ["nothing"])
    with pytest.raises(InputError, match="no value 'nothing'"):
        module({"input": torch.zeros(1, 1, 28, 28)}, replace={"nothing": torch.relu})
    with pytest.raises(InputError, match=r"Conv \(node 'stem.out'\) cannot be computed"):
        module({"input": torch.zeros(1, 3, 28, 28)})
