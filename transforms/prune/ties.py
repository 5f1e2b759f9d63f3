"""Ties: which indices live or die together, collected node by node from the relations.

A relation is a function ``(node, ties)`` that says how the axes of the node's inputs, weights and
outputs belong together. It must speak of every axis: tie it, or freeze it with a reason.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import constant
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.prune.index_space import Axis, IndexSpace, Indices

FREE_SIZE = "an axis it belongs to has no fixed size"


@dataclass(frozen=True)
class Layer:
    """A node that contracts ``activation`` with ``weight``.

    ``inputs`` and ``outputs`` are the weight's axes; an axis that is None is not contracted
    plainly (a depthwise kernel has no input axis). ``activation_axis`` is the contracted one.
    """

    node: ir.Node
    weight: ir.Value
    outputs: int
    inputs: int | None
    activation: ir.Value
    activation_axis: int


@dataclass(frozen=True)
class Option:
    """One way to tie an ambiguous node: ``left`` to ``right``, while ``frozen`` stays whole."""

    left: Indices
    right: Indices
    frozen: Indices


@dataclass(frozen=True)
class Choice:
    """Several ways to tie a node, of which one is taken; choices of one ``key`` are taken alike."""

    key: Hashable
    node: ir.Node
    options: tuple[Option, ...]


@dataclass
class Ties:
    """Everything that the relations say about one graph.

    ``shared_statistics`` are indices that a normalisation takes together, so that removing some
    changes the others; ``scales`` are the scales of BatchNormalizations.
    """

    space: IndexSpace
    constants: frozenset[int]
    opset: int
    pairs: list[tuple[Indices, Indices]] = field(default_factory=list)
    frozen: list[tuple[Indices, str]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    scales: list[ir.Value] = field(default_factory=list)
    shared_statistics: list[Indices] = field(default_factory=list)

    def rank(self, value: ir.Value | None) -> int:
        """The number of axes of ``value``; 0 where it is left out."""
        return len(known_dims(value) or ())

    def size(self, value: ir.Value | None, position: int) -> int | None:
        """The size of one axis; None where it is not known."""
        axis = self.axis(value, position)
        return None if axis is None else axis.size

    def axis(self, value: ir.Value | None, position: int) -> Axis | None:
        """See IndexSpace.axis."""
        return self.space.axis(value, position)

    def indices(self, value: ir.Value | None, position: int) -> Indices:
        """See IndexSpace.indices."""
        return self.space.indices(value, position)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether ``value`` depends on weights alone."""
        return value is not None and id(value) in self.constants

    def tie(self, left: Indices, right: Indices) -> None:
        """Tie two lists of indices pairwise; where one is unknown (empty), freeze the other.

        Arrays of other shapes are broadcast against each other, as numpy does.
        """
        if not left.size or not right.size:
            self.freeze(left if left.size else right, FREE_SIZE)
            return
        self.pairs.append((left, right))

    def tie_axes(
        self, left: ir.Value | None, left_axis: int, right: ir.Value | None, right_axis: int
    ) -> None:
        """Tie the indices of two axes one to one; axes of different sizes are frozen."""
        one, other = self.indices(left, left_axis), self.indices(right, right_axis)
        if one.size and other.size and one.size != other.size:
            self.freeze(one, FREE_SIZE)
            self.freeze(other, FREE_SIZE)
            return
        self.tie(one, other)

    def freeze(self, indices: Indices, reason: str) -> None:
        """Keep ``indices`` for ``reason``, which completes "it is kept because"."""
        if indices.size:
            self.frozen.append((indices.reshape(-1), reason))

    def freeze_axes(self, value: ir.Value | None, positions: range, reason: str) -> None:
        """Keep whole axes of ``value``."""
        for position in positions:
            self.freeze(self.indices(value, position), reason)

    def freeze_value(self, value: ir.Value | None, reason: str) -> None:
        """Keep all axes of ``value``."""
        self.freeze_axes(value, range(self.rank(value)), reason)

    def freeze_node(self, node: ir.Node, reason: str) -> None:
        """Keep all axes of everything that ``node`` reads and makes."""
        for value in (*node.inputs, *node.outputs):
            self.freeze_value(value, reason)

    def broadcast(self, value: ir.Value | None, output: ir.Value) -> None:
        """Tie ``value`` to ``output`` as broadcasting aligns them: from the last axis on."""
        for back in range(1, self.rank(output) + 1):
            size = self.size(value, -back)
            if back > self.rank(value) or (size == 1 and self.size(output, -back) != 1):
                continue
            self.tie_axes(value, -back, output, -back)


@dataclass(frozen=True)
class Components:
    """The sets of tied indices: ``labels`` gives every index its set, [indices].

    ``reasons`` names for every frozen set why it is kept, by label.
    """

    count: int
    labels: Indices
    reasons: dict[int, str]


def broadcast_pairs(pairs: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    """All pairs as two flat arrays."""
    if not pairs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    flat = [np.broadcast_arrays(left, right) for left, right in pairs]
    return (
        np.concatenate([left.reshape(-1) for left, _ in flat]),
        np.concatenate([right.reshape(-1) for _, right in flat]),
    )


def constant_values(graph: ir.Graph) -> frozenset[int]:
    """The ids of values that depend on weights alone."""
    known = {id(value) for value in graph.initializers.values() if constant(value) is not None}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if inputs and all(id(value) in known for value in inputs):
            known.update(id(output) for output in node.outputs)
    return frozenset(known)
