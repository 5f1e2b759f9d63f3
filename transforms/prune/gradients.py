"""What the removal of a set of channels does to the outputs, estimated by gradients.

Removing a set puts 0 in place of all weights w that read it, and what it gave on average into the
bias behind them. To second order that change d costs d' C d / 2, with C the curvature of the
outputs' loss (see distill.curvature).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from math import ceil

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.curvature import gradient_draws
from trimton.transforms.graph.edit import Array, constant_array
from trimton.transforms.prune.activations import ChannelMeans, batches, channel_means
from trimton.transforms.prune.groups import Prunable
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.ties import Layer

# A draw is the square of one normal number for each set: 128 of them are right within an eighth.
_DRAWS = 128
# A draw is worth as much whatever samples it sums over, and small batches make many of them.
_BATCH = 4
# Where the channels of a layer's result stand; a bias can be added to those of these layers.
_RESULT_AXES: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}

# What an estimate sees: (set of each index, derivative of the outputs along the change, [indices,
# weights of one]).
_Changes = Sequence[tuple[Indices, Array]]


def taylor(changes: _Changes, count: int) -> Array:
    """(sum of the changes of a set)^2 / 2: the set as a whole (Molchanov et al. 2019, 1906.10771).

    The gradients of labels that a model draws itself make of it the Fisher information.
    """
    return 0.5 * _added(((labels, rows.sum(axis=1)) for labels, rows in changes), count) ** 2


def hessian(changes: _Changes, count: int) -> Array:
    """Sum of squared changes / 2: the diagonal (LeCun et al. 1989), each weight for itself."""
    squares = ((labels, np.einsum("ij,ij->i", rows, rows)) for labels, rows in changes)
    return 0.5 * _added(squares, count)


ESTIMATES: Mapping[str, Callable[[_Changes, int], Array]] = {"taylor": taylor, "hessian": hessian}


def removal_effects(
    model: ir.Model, found: Prunable, samples: Mapping[str, Array], estimate: str, seed: int
) -> Array:
    """What each set costs the outputs of ``model`` when it alone goes, [sets], by ESTIMATES.

    The unit is that of distill.losses, nats for classes. ``found`` must belong to this very model;
    ``seed`` decides the random draws. A set that no layer reads has 0. Raises as gradient_draws
    and channel_means do.
    """
    means = channel_means(model, found.ties.layers, batches(model, samples))
    reads = list(_reads(found, means))
    results = {name for read in reads for name, _, _ in read.averages}
    feeds = list(batches(model, samples, at_most=_BATCH))
    passes = ceil(_DRAWS / len(feeds))
    total = np.zeros(found.found.count)
    draws = gradient_draws(
        model, {read.name for read in reads}, results, chain(*repeat(feeds, passes)), seed=seed
    )
    for draw in draws:
        changes = [(read.labels, read.changes(draw)) for read in reads if read.name in draw]
        total += ESTIMATES[estimate](changes, len(total))
    return total / (passes * len(feeds))


@dataclass(frozen=True)
class _Read:
    """Channels that are read by the weight ``name`` along ``inputs``: ``labels`` gives their sets.

    ``averages`` are, for each layer with that weight, its result, the axis of the channels in it,
    and what the layer reads on average [channels].
    """

    name: str
    weight: Array
    inputs: int
    outputs: int
    labels: Indices
    averages: tuple[tuple[str, int, Array], ...]

    def changes(self, draw: Mapping[str, Array]) -> Array:
        """The derivative along w -> 0, b -> b + w x mean for each weight w: a row a channel."""
        along = draw[self.name].astype(np.float64)
        for result, axis, mean in self.averages:
            if result in draw:
                bias = np.moveaxis(draw[result], axis, 0).reshape(
                    self.weight.shape[self.outputs], -1
                )
                along = along - self._spread(mean, self.inputs) * self._spread(
                    bias.sum(axis=1, dtype=np.float64), self.outputs
                )
        return _rows(along * self.weight, self.inputs)

    def _spread(self, numbers: Array, axis: int) -> Array:
        """``numbers`` along ``axis`` of the weight."""
        return numbers.reshape([-1 if i == axis else 1 for i in range(self.weight.ndim)])


def _reads(found: Prunable, means: Mapping[tuple[str, int], ChannelMeans]) -> Iterator[_Read]:
    """Every axis along which layers read channels, once even where they share the weight."""
    sharing: dict[tuple[str, int], list[Layer]] = defaultdict(list)
    for layer in found.ties.layers:
        if layer.inputs is not None:
            sharing[layer.weight.name or "", layer.inputs].append(layer)
    for (name, inputs), layers in sharing.items():
        weight = constant_array(layers[0].weight)
        indices = found.ties.indices(layers[0].weight, inputs)
        if weight is None or not indices.size:
            continue
        averages = tuple(
            (layer.node.outputs[0].name or "", axis, mean.signed)
            for layer in layers
            if (axis := _RESULT_AXES.get(layer.node.op_type)) is not None
            and (mean := means.get((layer.activation.name or "", layer.activation_axis)))
            and _takes_bias(layer, weight, mean)
        )
        labels = found.found.labels[indices]
        yield _Read(name, weight, inputs, layers[0].outputs, labels, averages)


def _takes_bias(layer: Layer, weight: Array, mean: ChannelMeans) -> bool:
    """Whether the result is a sum over all channels that the weight has an index for."""
    attributes = layer.node.attributes
    is_plain = attributes.get_int("group", 1) == 1 and attributes.get_float("alpha", 1.0) == 1
    is_matrix = weight.ndim == 2 or layer.node.op_type in {"Conv", "ConvTranspose"}
    return is_plain and is_matrix and len(mean.signed) == weight.shape[layer.inputs or 0]


def _rows(array: Array, axis: int) -> Array:
    """One row for each index of ``axis``."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _added(parts: Iterable[tuple[Indices, Array]], count: int) -> Array:
    """Numbers of indices added up by set."""
    sums = np.zeros(count)
    for labels, numbers in parts:
        np.add.at(sums, labels, numbers)
    return sums
