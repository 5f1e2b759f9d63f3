"""SmoothQuant: what is hard to quantise in activations moves into the weights that read them.

A few channels of a transformer's activations are far larger than the others, and all share one
scale. Divided by s, with the rows of the weights multiplied by s, the product stays the same:
X W = (X S^-1) (S W), with s = max|X|^a / max|W|^(1 - a) for each channel. The division goes into
what makes the activation where that scales anyway, else into a Mul of its own.

Source: Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant_array, input_at
from trimton.transforms.graph.taps import Taps
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers
from trimton.transforms.quantize.channel_scaling import power_of_two, scale_inputs, scale_vector
from trimton.transforms.report import Step

_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
# The expected noise must fall at least to this share: where scales fold away, and for a Mul.
_WORTH_FOLDING = 0.95
_WORTH_A_NODE = 0.6


@dataclass(frozen=True)
class ChannelRanges:
    """The smallest and largest number of each channel (the last axis), and its mean square."""

    low: Array
    high: Array
    squares: Array


@dataclass(frozen=True)
class _Reading:
    """A value and the matrix products that read it, first those that become integers.

    ``in_float`` are the others: they only scale along where the value itself is scaled.
    """

    value: ir.Value
    layers: tuple[LinearLayer, ...]
    in_float: tuple[LinearLayer, ...]


def smooth(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], layers: Collection[str] | None = None
) -> tuple[Step, ...]:
    """Smooth what matrix products of ``model`` read, in place; ``batches`` are run once.

    ``model`` is in normal form with shapes; ``layers`` names the products that are to become
    integers (None: all). Scales are powers of two: outputs stay the same to the bit. One step for
    each value. Raises InputError where the model cannot be run on the batches.
    """
    readings = tuple(_readings(model, layers))
    if not readings:
        return ()
    ranges = _ranges(model, [reading.value.name or "" for reading in readings], batches)
    editor = Editor(model)
    steps = (_smooth(reading, ranges[reading.value.name or ""], editor) for reading in readings)
    return tuple(step for step in steps if step is not None)


def _smooth(reading: _Reading, ranges: ChannelRanges, editor: Editor) -> Step | None:
    weights = np.concatenate([layer.matrices()[0] for layer in reading.layers], axis=1)
    before = expected_noise(ranges, weights, np.ones(len(weights)))
    options = [smoothing_scales(ranges, weights, strength) for strength in _STRENGTHS]
    noises = [expected_noise(ranges, weights, scales) for scales in options]
    best = int(np.argmin(noises))
    fold = _folding(reading)
    if noises[best] > before * (_WORTH_A_NODE if fold is None else _WORTH_FOLDING):
        return None
    scales = options[best]
    scaled = reading.layers if fold is None else (*reading.layers, *reading.in_float)
    for layer in scaled:
        scale_inputs(layer, scales)
    for node, index in fold or ():
        scale_vector(node, index, 1.0 / scales, editor)
    if fold is None:
        _insert(reading, 1.0 / scales, editor)
    return Step(
        "smooth",
        f"scales of channels moved from {reading.value.name} into the weights that read it",
        len(reading.layers),
        {"strength": _STRENGTHS[best], "expected_noise_ratio": noises[best] / before},
    )


def smoothing_scales(ranges: ChannelRanges, weights: Array, strength: float) -> Array:
    """Scales s [channels] for ``weights`` [channels, outputs], powers of two around 1."""
    largest = np.maximum(np.abs(ranges.low), np.abs(ranges.high))
    meets = np.abs(weights).max(axis=1)
    is_used = (largest > 0) & (meets > 0)
    scales = np.ones(len(weights))
    scales[is_used] = largest[is_used] ** strength / meets[is_used] ** (1 - strength)
    centre = np.exp(np.log(scales[is_used]).mean()) if is_used.any() else 1.0
    scales[is_used] /= centre
    return power_of_two(scales)


def expected_noise(ranges: ChannelRanges, weights: Array, scales: Array) -> float:
    """The expected squared error of a product's outputs for ``scales``: 8 bits on both sides.

    A step d makes noise of variance d^2 / 12. Activations share one step, each output's weights
    have one.
    """
    scaled = weights * scales[:, None]
    width = max(0.0, (ranges.high / scales).max()) - min(0.0, (ranges.low / scales).min())
    of_activations = (width / 255) ** 2 * np.square(scaled).sum()
    steps = np.abs(scaled).max(axis=0) / 127
    of_weights = np.square(steps).sum() * (ranges.squares / np.square(scales)).sum()
    return float(of_activations + of_weights) / 12


def _readings(model: ir.Model, layers: Collection[str] | None) -> Iterator[_Reading]:
    by_value: dict[ir.Value, list[LinearLayer]] = {}
    for layer in find_linear_layers(model).layers:
        if not layer.kernel and layer.layer.node.inputs[0] is layer.layer.activation:
            by_value.setdefault(layer.layer.activation, []).append(layer)
    for value, readers in by_value.items():
        chosen = tuple(x for x in readers if layers is None or x.name in layers)
        if chosen:
            yield _Reading(value, chosen, tuple(x for x in readers if x not in chosen))


def _folding(reading: _Reading) -> Sequence[tuple[ir.Node, int]] | None:
    """The constants in front of the value that can take up scales; None where there are none."""
    value, producer = reading.value, reading.value.producer()
    readers = {layer.layer.node for layer in (*reading.layers, *reading.in_float)}
    if producer is None or producer.domain or value.is_graph_output():
        return None
    if any(node not in readers or index != 0 for node, index in value.uses()):
        return None
    channels = reading.layers[0].matrices().shape[1]
    match producer.op_type:
        case "LayerNormalization":
            axis = producer.attributes.get_int("axis", -1)
            if axis != -1 or any(output.uses() for output in producer.outputs[1:]):
                return None
            places = [1] if input_at(producer, 2) is None else [1, 2]
        case "Mul":
            places = [i for i in (1, 0) if constant_array(producer.inputs[i]) is not None][:1]
        case _:
            return None
    # A single factor stays one: the runtime fuses it with what is around it, in Gelu above all.
    arrays = [constant_array(producer.inputs[place]) for place in places]
    fits = all(a is not None and a.ndim > 0 and a.shape[-1] == a.size == channels for a in arrays)
    return [(producer, place) for place in places] if places and fits else None


def _insert(reading: _Reading, factors: Array, editor: Editor) -> None:
    """Put a Mul between the value and the products that read it."""
    value, graph = reading.value, reading.layers[0].layer.node.graph
    if graph is None:
        raise ValueError("the node belongs to no graph")
    name = editor.fresh_name(f"{value.name}_smoothed")
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    constant = editor.add_constant(graph, f"{value.name}_smoothing", factors.astype(dtype))
    made = ir.Value(name=name, type=value.type, shape=value.shape)
    node = ir.node("Mul", [value, constant], outputs=[made], name=name)
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), node)
    else:
        graph.insert_after(producer, node)
    for layer in reading.layers:
        layer.layer.node.replace_input_with(0, made)


def _ranges(
    model: ir.Model, names: Sequence[str], batches: Iterable[Mapping[str, Array]]
) -> Mapping[str, ChannelRanges]:
    given = {value.name for value in model.graph.inputs}
    computed = [name for name in names if name not in given]
    taps = Taps(model, computed) if computed else None
    found: dict[str, ChannelRanges] = {}
    counts = dict.fromkeys(names, 0)
    for feed in batches:
        values = dict(feed) if taps is None else {**feed, **taps(feed)}
        for name in names:
            rows = values[name].reshape(-1, values[name].shape[-1])
            new = ChannelRanges(
                rows.min(axis=0), rows.max(axis=0), np.square(rows, dtype=np.float64).sum(axis=0)
            )
            old = found.get(name, new)
            squares = new.squares if counts[name] == 0 else old.squares + new.squares
            found[name] = ChannelRanges(
                np.minimum(old.low, new.low), np.maximum(old.high, new.high), squares
            )
            counts[name] += len(rows)
    return {
        name: ChannelRanges(one.low, one.high, one.squares / counts[name])
        for name, one in found.items()
    }
