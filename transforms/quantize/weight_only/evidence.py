"""Second moments of what products read on calibration samples, a few products in each pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Taps
from trimton.transforms.quantize.calibration.feeds import feeds
from trimton.transforms.quantize.products import Product

# Values that are tapped in one run: those of one batch are in memory at once.
_TAPPED_AT_ONCE = 8
# Rows of one batch that take part, at even distances: more say little more about the moments.
_MOST_ROWS = 2048
# The moments of more terms than these are too large to hold and to invert.
MOST_TERMS = 5120


def input_moments(
    model: ir.Model, products: Sequence[Product], samples: Mapping[str, Array]
) -> Iterator[tuple[Product, Array]]:
    """Each of ``products`` that stands in the main graph, with the sum of x x' over rows x
    that it reads, float64 [terms, terms].

    Raises InputError where the model cannot be run on ``samples``.
    """
    read: dict[str, list[Product]] = {}
    for one in products:
        value = one.node.inputs[0]
        terms = one.weight.shape
        if one.node.graph is not model.graph or value is None or terms is None:
            continue
        if max(dim for dim in terms if isinstance(dim, int)) <= MOST_TERMS:
            read.setdefault(value.name or "", []).append(one)
    names = list(read)
    for start in range(0, len(names), _TAPPED_AT_ONCE):
        some = names[start : start + _TAPPED_AT_ONCE]
        for name, gram in _grams(model, some, samples).items():
            yield from ((one, gram) for one in read[name])


def _grams(model: ir.Model, names: Sequence[str], samples: Mapping[str, Array]) -> dict[str, Array]:
    taps = Taps(model, names)
    grams: dict[str, Array] = {}
    for feed in feeds(model, samples):
        for name, values in taps(feed).items():
            rows = values.reshape(-1, values.shape[-1])
            rows = rows[:: -(-len(rows) // _MOST_ROWS)]
            gram = (rows.T @ rows).astype(np.float64)
            grams[name] = grams[name] + gram if name in grams else gram
    return grams
