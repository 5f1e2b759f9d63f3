"""What linear layers read and make on calibration samples, as sums that do not grow with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Taps
from trimton.transforms.linear.layers import LinearLayer
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.refit.features import places_for, rows
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.site import contribution
from trimton.transforms.prune.refit.taps import is_held_out

# Layers whose values are tapped in one run: their activations of one batch are in memory at once.
_TAPPED_AT_ONCE = 8
# Rows of one batch that take part in the statistics of an output.
_ROWS = 4096


@dataclass(frozen=True)
class Evidence:
    """Moments of what a layer reads (features) and of the error to remove (targets), by group.

    The error is that of the value which the layer contributes to: what it is in the original
    network less what it is now. ``held_out`` is None where there are too few samples to judge
    by; ``variance`` is that of the value in the original network, summed over channels.
    """

    seen: tuple[Moments, ...]
    held_out: tuple[Moments, ...] | None
    variance: float

    @property
    def judge(self) -> tuple[Moments, ...]:
        """The rows that errors are told on."""
        return self.seen if self.held_out is None else self.held_out

    @property
    def everything(self) -> tuple[Moments, ...]:
        """All rows."""
        if self.held_out is None:
            return self.seen
        return tuple(a + b for a, b in zip(self.seen, self.held_out, strict=True))


def gather(
    original: ir.Model, current: ir.Model, layer: LinearLayer, samples: Mapping[str, Array]
) -> Evidence:
    """The evidence for ``layer`` of ``current``; memory does not depend on the samples.

    Raises InputError where the models cannot be run on ``samples``.
    """
    target = contribution(layer.layer.node.outputs[0]).name or ""
    reference, made = Taps(original, [target]), Taps(current, [layer.read, target])
    rng = np.random.default_rng(0)
    places = places_for(layer.layer, samples)
    parts: dict[bool, tuple[Moments, ...]] = {}
    spread: Moments | None = None
    for number, feed in enumerate(batches(original, samples)):
        values = made(feed)
        batch = rows(layer.layer, values[layer.read], places, rng)
        goal = batch.select(reference(feed)[target])
        error = goal - batch.select(values[target])
        moments = tuple(map(Moments.of, _split(batch.features, layer), _split(error, layer)))
        spread = _sum(spread, Moments.of(np.zeros((len(goal), 0)), goal))
        key = is_held_out(number)
        old = parts.get(key)
        parts[key] = moments if old is None else tuple(map(Moments.__add__, old, moments))
    if spread is None:
        raise ValueError("there are no batches")
    return Evidence(parts[False], parts.get(True), spread.variance())


def input_squares(
    model: ir.Model, layers: Sequence[LinearLayer], samples: Mapping[str, Array]
) -> tuple[Array, ...]:
    """The mean square of every feature that each of ``layers`` reads, [groups, features] each."""
    sums: dict[int, tuple[Array, int]] = {}
    rng = np.random.default_rng(0)
    for position, layer, values in _tapped(model, layers, samples, of_inputs=True):
        batch = rows(layer.layer, values, places_for(layer.layer, samples), rng)
        squares = np.square(batch.features, dtype=np.float64).sum(axis=0)
        old, count = sums.get(position, (np.zeros(()), 0))
        sums[position] = (old + squares, count + len(batch.features))
    return tuple(
        (sums[position][0] / sums[position][1]).reshape(layer.groups, -1)
        for position, layer in enumerate(layers)
    )


def response_moments(
    model: ir.Model, layers: Sequence[LinearLayer], samples: Mapping[str, Array]
) -> tuple[Moments, ...]:
    """Moments of what each of ``layers`` makes (features; no targets), over sampled places."""
    found: dict[int, Moments] = {}
    rng = np.random.default_rng(0)
    for position, layer, values in _tapped(model, layers, samples, of_inputs=False):
        channels = values.shape[layer.channel_axis]
        flat = np.moveaxis(values, layer.channel_axis, -1).reshape(-1, channels)
        if len(flat) > _ROWS:
            flat = flat[rng.choice(len(flat), _ROWS, replace=False)]
        moments = Moments.of(flat, np.zeros((len(flat), 0)))
        found[position] = moments if position not in found else found[position] + moments
    return tuple(found[position] for position in range(len(layers)))


def _tapped(
    model: ir.Model,
    layers: Sequence[LinearLayer],
    samples: Mapping[str, Array],
    *,
    of_inputs: bool,
) -> Iterable[tuple[int, LinearLayer, Array]]:
    """Every layer with what it reads, or makes, batch by batch; a few layers in each pass."""
    given = {value.name for value in model.graph.inputs}
    for start in range(0, len(layers), _TAPPED_AT_ONCE):
        some = layers[start : start + _TAPPED_AT_ONCE]
        names = [layer.read if of_inputs else layer.output for layer in some]
        computed = [name for name in names if name not in given]
        taps = Taps(model, computed) if computed else None
        for feed in batches(model, samples):
            values = {**feed, **({} if taps is None else taps(feed))}
            for position, (layer, name) in enumerate(zip(some, names, strict=True), start):
                yield position, layer, values[name]


def _split(array: Array, layer: LinearLayer) -> tuple[Array, ...]:
    """[rows, groups * n] -> one array [rows, n] for each group."""
    grouped = array.reshape(len(array), layer.groups, -1)
    return tuple(np.moveaxis(grouped, 1, 0))


def _sum(old: Moments | None, new: Moments) -> Moments:
    return new if old is None else old + new
