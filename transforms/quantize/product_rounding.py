"""Integers of matrix products that make up for each other's errors, from one pass over samples.

What ``refine`` does layer by layer on the quantised network, here on what the products read in
the float one: no layer has to wait for another, so that a pass over the samples serves many. For
convolutions, whose patches are many, this is not worth its time. Integers of four batches in five
are there to be judged by the others (see Judge), those of all batches to be used then.

Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.prune.refit.taps import is_held_out
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
        # By layer: integers of all batches, and of those alone that do not judge.
        self._rounded: dict[str, tuple[Array, Array]] = {}

    def round(self, layers: Sequence[IntegerLayer], *, judged: bool) -> tuple[str, ...]:
        """New integers for the products among ``layers``, in place, and their names.

        If ``judged``, every fifth batch has no part in them.

        Left alone are convolutions, very long sums and what too few rows say too little about.
        Raises InputError where the model cannot be run on the batches.
        """
        products = [x for x in layers if not x.linear.kernel and x.features <= _MOST_TERMS]
        asked = [x for x in products if x.linear.name not in self._rounded]
        by_value: dict[str, list[IntegerLayer]] = {}
        for layer in asked:
            by_value.setdefault(layer.linear.read, []).append(layer)
        for name, seen, held_out in _moments(self._original, list(by_value), self._batches):
            for layer in by_value[name]:
                if seen.rows >= _LEAST_ROWS_PER_TERM * layer.features:
                    fits = [seen] if held_out is None else [seen + held_out, seen]
                    integers = [_integers(layer, moments) for moments in fits]
                    self._rounded[layer.linear.name] = (integers[0], integers[-1])
        done = [layer for layer in products if layer.linear.name in self._rounded]
        for layer in done:
            layer.set_integers(self._rounded[layer.linear.name][judged])
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
) -> Iterator[tuple[str, Moments, Moments | None]]:
    """Each of ``names`` with its moments over the batches that fit, and over those that judge."""
    for start in range(0, len(names), _TAPPED_AT_ONCE):
        some = names[start : start + _TAPPED_AT_ONCE]
        taps = Taps(model, some)
        found: dict[tuple[str, bool], Moments] = {}
        for number, feed in enumerate(batches()):
            for name, values in taps(feed).items():
                key, new = (name, is_held_out(number)), _of_batch(values)
                found[key] = found[key] + new if key in found else new
        yield from (
            (name, found[name, False], found.get((name, True)))
            for name in some
            if (name, False) in found
        )


def _of_batch(values: Array) -> Moments:
    rows = values.reshape(-1, values.shape[-1])
    squares = (rows.T @ rows).astype(np.float64)
    return Moments(len(rows), rows.sum(axis=0, dtype=np.float64), squares)
