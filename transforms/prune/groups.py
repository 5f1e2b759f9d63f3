"""Groups: sets of tied indices of equal kind, among which pruning chooses.

Two sets are of one kind if they have as many indices on the same axes: the output channels of
a convolution are one group, together with those of all that they are tied to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import constant
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.shapes import bind_free_dims
from trimton.transforms.prune.components import components
from trimton.transforms.prune.index_space import Array, Axis, Indices
from trimton.transforms.prune.ties import Components, Layer, Ties

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


@dataclass(frozen=True)
class Group:
    """Sets of indices of equal kind: any of them can be removed.

    ``layers`` make the channels; where none does, these are the weights that hold them.
    ``sets`` are their labels, in the order of the channels; each removes ``width`` channels of
    the layers, ``parameters`` and ``macs`` while all other groups are whole (None where shapes
    are free). ``shares_statistics`` says that a normalisation runs over them, so that removing
    some changes what it does to the others.
    """

    name: str
    layers: tuple[str, ...]
    sets: Indices
    width: int
    parameters: int
    macs: int | None
    shares_statistics: bool

    @property
    def channels(self) -> int:
        """The channels of all its sets."""
        return len(self.sets) * self.width


@dataclass(frozen=True)
class FrozenLayer:
    """A layer of which some channels cannot be removed, how many, and why."""

    name: str
    channels: int
    why: str


@dataclass(frozen=True)
class Prunable:
    """What can be pruned in a model, and what cannot."""

    ties: Ties
    found: Components
    groups: tuple[Group, ...]
    frozen: tuple[FrozenLayer, ...]


def find_groups(ties: Ties, model: ir.Model, exclude: Sequence[str] = ()) -> Prunable:
    """The groups of ``model``, whose ties are given; see PruneSettings for ``exclude``.

    Raises InputError for a pattern that fits no layer.
    """
    _freeze_excluded(ties, exclude)
    found = components(ties)
    by_kind = _kinds(ties, found)
    parameters, macs = _costs(ties, found, model)
    layers_of = _layers_by_set(ties, found)
    shared = {int(label) for part in ties.shared_statistics for label in found.labels[part]}
    groups: list[Group] = []
    for sets in by_kind:
        first = int(sets[0])
        if len(sets) < 2 or first in found.reasons or not parameters[first]:
            continue
        layers = layers_of.get(first) or list(_tables(ties, found, first))
        groups.append(
            Group(
                name=layers[0][0],
                layers=tuple(dict.fromkeys(name for name, _ in layers)),
                sets=sets,
                width=layers[0][1],
                parameters=round(float(parameters[first])),
                macs=None if macs is None else round(float(macs[first])),
                shares_statistics=first in shared,
            )
        )
    return Prunable(ties, found, tuple(groups), tuple(_frozen_layers(ties, found, groups)))


def layer_name(layer: Layer) -> str:
    """The name of its node, or of what it makes."""
    return layer.node.name or layer.node.outputs[0].name or layer.node.op_type


def weight_axes(ties: Ties) -> Iterator[tuple[ir.Value, Axis]]:
    """The axes of all constants."""
    for axis in ties.space.axes:
        if constant(axis.value) is not None:
            yield axis.value, axis


def _freeze_excluded(ties: Ties, exclude: Sequence[str]) -> None:
    for pattern in exclude:
        fitting = [layer for layer in ties.layers if fnmatchcase(layer_name(layer), pattern)]
        if not fitting:
            names = ", ".join(layer_name(layer) for layer in ties.layers[:5])
            raise InputError(
                f"the pattern {pattern!r} excludes no layer; names of layers are {names}..."
            )
        for layer in fitting:
            ties.freeze(ties.indices(layer.weight, layer.outputs), f"it is excluded by {pattern!r}")


def _kinds(ties: Ties, found: Components) -> list[Indices]:
    """Labels of equal kind, in the order of their first index: a kind is a multiset of axes."""
    if not ties.space.size:
        return []
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, len(ties.space.axes), dtype=np.uint64)
    order = np.argsort(found.labels, kind="stable")
    starts = np.searchsorted(found.labels[order], np.arange(found.count))
    sums = np.add.reduceat(codes[ties.space.axis_numbers()][order], starts)
    first_index = order[starts]
    _, kind = np.unique(sums, return_inverse=True)
    # A set with and one without a reason to be kept may be alike (a Pad, an exclusion).
    is_frozen = np.zeros(found.count, np.int64)
    is_frozen[list(found.reasons)] = 1
    by_kind = np.lexsort((first_index, is_frozen, kind))
    keys = np.stack([kind[by_kind], is_frozen[by_kind]])
    cuts = np.flatnonzero(np.any(keys[:, 1:] != keys[:, :-1], axis=0)) + 1
    parts = np.split(by_kind.astype(np.int64), cuts)
    return sorted(parts, key=lambda part: int(first_index[part[0]]))


def _costs(ties: Ties, found: Components, model: ir.Model) -> tuple[Array, Array | None]:
    """Parameters and multiply-accumulates that each set alone removes, by label."""
    parameters = np.zeros(found.count)
    for value, axis in weight_axes(ties):
        tensor = constant(value)
        if tensor is not None and tensor.dtype in _FLOATS:
            np.add.at(
                parameters, found.labels[axis.indices], prod(tensor.shape.numpy()) / axis.size
            )
    sized = model.clone()
    bind_free_dims(sized, {})
    node_cost = {
        id(node): node_macs(twin) for node, twin in zip(model.graph, sized.graph, strict=True)
    }
    macs = np.zeros(found.count)
    for layer in ties.layers:
        cost = node_cost[id(layer.node)]
        if cost is None:
            return parameters, None
        if layer.node.op_type in ("LSTM", "GRU", "RNN"):  # one node, two weights
            cost //= 2
        for position in (layer.outputs, layer.inputs):
            sliced = None if position is None else ties.axis(layer.weight, position)
            if sliced is not None:
                np.add.at(macs, found.labels[sliced.indices], cost / sliced.size)
    return parameters, macs


def _layers_by_set(ties: Ties, found: Components) -> dict[int, list[tuple[str, int]]]:
    """Label -> (name, channels) of the layers that make its channels."""
    made: dict[int, list[tuple[str, int]]] = {}
    for layer in ties.layers:
        labels = found.labels[ties.indices(layer.weight, layer.outputs)]
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            made.setdefault(int(label), []).append((layer_name(layer), int(count)))
    return made


def _tables(ties: Ties, found: Components, label: int) -> Iterator[tuple[str, int]]:
    """(name, channels) of the weights with a set that no layer makes, such as embeddings."""
    for value, axis in weight_axes(ties):
        count = int(np.count_nonzero(found.labels[axis.indices] == label))
        if count:
            yield value.name or "", count


def _frozen_layers(ties: Ties, found: Components, groups: Sequence[Group]) -> Iterator[FrozenLayer]:
    free = {int(label) for group in groups for label in group.sets}
    for layer in ties.layers:
        labels = found.labels[ties.indices(layer.weight, layer.outputs)]
        kept = [int(label) for label in labels if int(label) not in free]
        if kept:
            alone = (
                "it has a single channel"
                if len(kept) == 1
                else f"its {len(kept)} channels can only be removed together"
            )
            yield FrozenLayer(layer_name(layer), len(kept), found.reasons.get(kept[0], alone))
