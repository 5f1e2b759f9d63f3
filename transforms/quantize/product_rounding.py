"""Integers of matrix products that make up for each other's errors, from one pass over samples.

What ``refine`` does layer by layer on the quantised network, here on what the products read in
the float one: no layer has to wait for another, so that a pass over the samples serves many. For
convolutions, whose patches are many, this is not worth its time.

Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.quantize.integer_layers import IntegerLayer
from trimton.transforms.quantize.weights.compensation import compensated_rounding

Batches = Callable[[], Iterable[Feed]]

# Values that are tapped in one run: those of one batch, and their moments, are in memory at once.
_TAPPED_AT_ONCE = 8
# Moments of fewer rows for each term say too little about what is read otherwise.
_LEAST_ROWS_PER_TERM = 2
# The moments of more terms than these take too long to invert.
_MOST_TERMS = 4096


@dataclass(frozen=True)
class Moments:
    """Sums over ``rows`` rows: ``total`` [terms] of them, ``squares`` [terms, terms] of x x'."""

    rows: int
    total: Array
    squares: Array

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.rows + other.rows, self.total + other.total, self.squares + other.squares
        )

    def gram(self, *, centred: bool) -> Array:
        """Their mean, around the mean row if ``centred``."""
        mean = self.total / self.rows
        gram: Array = self.squares / self.rows - (np.outer(mean, mean) if centred else 0.0)
        return gram


class ProductRounding:
    """Rounds products of ``original``; what was found out is kept for later calls."""

    def __init__(self, original: ir.Model, batches: Batches) -> None:
        self._original, self._batches = original, batches
        self._rounded: dict[str, Array] = {}

    def round(self, layers: Sequence[IntegerLayer]) -> tuple[str, ...]:
        """New integers for the products among ``layers``, in place, and their names.

        Left alone are convolutions, very long sums and what too few rows say too little about.
        Raises InputError where the model cannot be run on the batches.
        """
        products = [x for x in layers if not x.linear.kernel and x.features <= _MOST_TERMS]
        asked = [x for x in products if x.linear.name not in self._rounded]
        by_value: dict[str, list[IntegerLayer]] = {}
        for layer in asked:
            by_value.setdefault(layer.linear.read, []).append(layer)
        for name, moments in _moments(self._original, list(by_value), self._batches):
            for layer in by_value[name]:
                if moments.rows >= _LEAST_ROWS_PER_TERM * layer.features:
                    self._rounded[layer.linear.name] = _integers(layer, moments)
        done = [layer for layer in products if layer.linear.name in self._rounded]
        for layer in done:
            layer.set_integers(self._rounded[layer.linear.name])
        return tuple(layer.linear.name for layer in done)


def _integers(layer: IntegerLayer, moments: Moments) -> Array:
    """[groups, features, outputs] that lose less of the outputs than those closest to the weights.

    A bias takes away the mean error, so that only what varies counts where there is one.
    """
    rows = layer.linear.matrices().transpose(0, 2, 1)
    gram = moments.gram(centred=layer.bias is not None)[np.newaxis]
    made = compensated_rounding(rows, layer.scales, gram, is_paired=layer.is_paired)
    return made.transpose(0, 2, 1)


def _moments(
    model: ir.Model, names: Sequence[str], batches: Batches
) -> Iterator[tuple[str, Moments]]:
    for start in range(0, len(names), _TAPPED_AT_ONCE):
        some = names[start : start + _TAPPED_AT_ONCE]
        taps = Taps(model, some)
        found: dict[str, Moments] = {}
        for feed in batches():
            for name, values in taps(feed).items():
                new = _of_batch(values)
                found[name] = found[name] + new if name in found else new
        yield from found.items()


def _of_batch(values: Array) -> Moments:
    rows = values.reshape(-1, values.shape[-1])
    squares = (rows.T @ rows).astype(np.float64)
    return Moments(len(rows), rows.sum(axis=0, dtype=np.float64), squares)
