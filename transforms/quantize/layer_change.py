"""Changes of one quantised layer that bring its output closer to its goal, the best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.integer_layers import IntegerLayer
from trimton.transforms.quantize.layer_evidence import Evidence, Question
from trimton.transforms.quantize.weights.candidates import Candidate, Weights, candidates


@dataclass(frozen=True)
class LayerChange:
    """New ``integers`` for ``layer`` and a ``shift`` of its bias.

    ``before`` and ``after`` are mean squared errors of its target, as shares of the variance in
    the original.
    """

    layer: IntegerLayer
    method: str
    integers: Array
    shift: Array
    before: float
    after: float

    def apply(self) -> tuple[tuple[ir.Value, ir.TensorProtocol | None], ...]:
        """Change the layer in place; what was there before, for ``restore``."""
        values = [self.layer.weight]
        if self.layer.bias is not None:
            values.append(self.layer.bias.value)
        saved = tuple((value, value.const_value) for value in values)
        self.layer.set_integers(self.integers)
        if self.layer.bias is not None:
            self.layer.bias.add(self.shift.ravel())
        return saved


def restore(saved: tuple[tuple[ir.Value, ir.TensorProtocol | None], ...]) -> None:
    """Put constants back."""
    for value, tensor in saved:
        value.const_value = tensor


def changes(question: Question, evidence: Evidence) -> Iterator[LayerChange]:
    """What is best for each group of the layer, then the bias alone; only what is closer."""
    layer, features = question.layer, question.features
    old = layer.integers()
    weights = Weights(
        layer.linear.matrices()[:, :features],
        old[:, :features],
        layer.scales,
        layer.kernel_order()[:features],
        layer.is_paired,
    )
    seen, held_out = evidence.seen, evidence.held_out
    judge = seen if held_out is None else held_out
    tried = candidates(weights, seen, held_out, has_bias=layer.bias is not None)
    errors = np.stack([judge.errors(weights.change(c.integers), c.shift) for c in tried])
    groups = np.arange(len(old))
    before = errors[0].sum() / evidence.variance
    for allowed in dict.fromkeys((len(tried), min(2, len(tried)))):
        choice = np.argmin(errors[:allowed], axis=0)
        integers, shift = _chosen(tried, choice)
        after = errors[choice, groups].sum() / evidence.variance
        if after < before:
            made = old.copy()
            made[:, :features] = integers
            method = tried[int(np.bincount(choice).argmax())].method
            yield LayerChange(layer, method, made, shift, float(before), float(after))


def _chosen(tried: list[Candidate], choice: Array) -> tuple[Array, Array]:
    """The integers and the shift of the candidate ``choice`` [groups] of each group."""
    groups = np.arange(len(choice))
    integers = np.stack([one.integers for one in tried])[choice, groups]
    return integers, np.stack([one.shift for one in tried])[choice, groups]
