"""Loading with a sample compares every node with ONNX Runtime, and names the first that differs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.interpreter import OnnxModule, operators
from trimton.transforms.distill.interpreter.operators.table import plain

SAMPLE = {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}


@pytest.fixture
def chain(parse) -> ir.Model:
    text = "g (float[N,3] x) => (float[N,3] z) {a = Mul(x, w) b = Tanh(a) c = Elu(b) z = Tanh(c)}"
    model: ir.Model = parse(text, w=np.array([1, -2, 3], np.float32))
    for node in model.graph:
        node.name = f"makes_{node.outputs[0].name}"
    return model


def test_a_right_model_passes(chain) -> None:
    assert OnnxModule(chain, check=SAMPLE).outputs == ("z",)


def test_the_first_wrong_node_is_named_with_its_difference(chain, monkeypatch) -> None:
    monkeypatch.setitem(operators.OPERATORS, ("", "Elu"), plain(lambda x: torch.relu(x) * 1.25))
    with pytest.raises(UnsupportedModelError, match=r"Elu \(node 'makes_c'\) differs .* by 0\.6"):
        OnnxModule(chain, check=SAMPLE)


def test_later_nodes_are_checked_on_right_inputs(chain, monkeypatch) -> None:
    """An error of rounding size in one node is not counted again in the next."""
    monkeypatch.setitem(operators.OPERATORS, ("", "Mul"), plain(lambda x, w: x * w * (1 + 9e-5)))
    assert OnnxModule(chain, check=SAMPLE).largest_difference < 1e-4


def test_a_wrong_shape_is_named(chain, monkeypatch) -> None:
    monkeypatch.setitem(operators.OPERATORS, ("", "Elu"), plain(lambda x: x[:, :2]))
    with pytest.raises(UnsupportedModelError, match=r"shape \[4, 2\] here and \[4, 3\] in ONNX"):
        OnnxModule(chain, check=SAMPLE)


def test_what_a_branch_gives_is_checked(parse, monkeypatch) -> None:
    text = """g (float[N,3] x) => (float[N,3] z) {
        s = Size(x)  c = Equal(s, twelve)
        b = If (c) <
            then_branch = yes () => (float[N,3] t) {t = Elu(x)},
            else_branch = no () => (float[N,3] e) {e = Identity(x)}
        >
        z = Mul(b, w)
    }"""
    model = parse(text, w=np.ones(3, np.float32), twelve=np.array(12, np.int64))
    OnnxModule(model, check=SAMPLE)
    monkeypatch.setitem(operators.OPERATORS, ("", "Elu"), plain(torch.relu))
    with pytest.raises(UnsupportedModelError, match="If "):
        OnnxModule(model, check=SAMPLE)


def test_a_sample_of_a_wrong_shape_is_refused(chain) -> None:
    with pytest.raises(InputError, match="cannot be run on the samples given"):
        OnnxModule(chain, check={"x": np.zeros((4, 2), np.float32)})
