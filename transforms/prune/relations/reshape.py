"""Reshape and Flatten: axes in row-major order are merged and split.

The dimensions of both sides are cut into the shortest runs of equal products. A run of one axis on
both sides is passed on; where one axis stands against several, it can lose whole blocks along one
of these, and which one is a choice (see components).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.prune.index_space import NO_INDICES
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Choice, Option, Ties

_MIXED = "a Reshape mixes it with other axes"

Dims = Sequence[int | None]


def reshape(node: ir.Node, ties: Ties) -> None:
    """Reshape: the shape is rewritten."""
    _regroup(node, ties)
    ties.freeze_value(input_at(node, 1), "it is a shape")


def flatten(node: ir.Node, ties: Ties) -> None:
    """Flatten: merges the axes before and after ``axis``."""
    _regroup(node, ties)


def _regroup(node: ir.Node, ties: Ties) -> None:
    data, output = node.inputs[0], node.outputs[0]
    before, after = known_dims(data) or (), known_dims(output) or ()
    for left, right in runs(before, after):
        if len(left) == len(right) == 1:
            ties.tie_axes(data, left[0], output, right[0])
        elif len(left) == 1:
            _split(node, ties, data, left[0], output, right)
        elif len(right) == 1:
            _split(node, ties, output, right[0], data, left)
        else:
            for value, axes in ((data, left), (output, right)):
                for axis in axes:
                    ties.freeze(ties.indices(value, axis), _MIXED)


def _split(
    node: ir.Node,
    ties: Ties,
    flat_value: ir.Value | None,
    flat_axis: int,
    parts_value: ir.Value | None,
    parts: Sequence[int],
) -> None:
    """Tie one axis to one of several: the options of a choice."""
    flat = ties.indices(flat_value, flat_axis)
    axes = [ties.axis(parts_value, part) for part in parts]
    sizes = [0 if axis is None else axis.size for axis in axes]
    if not flat.size or np.prod(sizes) != flat.size:
        ties.freeze(flat, _MIXED)
        for part in parts:
            ties.freeze(ties.indices(parts_value, part), _MIXED)
        return
    grid = flat.reshape(sizes)
    options: list[Option] = []
    for number, axis in enumerate(axes):
        if axis is None or axis.size == 1:
            continue
        others = [a.indices for a in axes if a is not None and a is not axis and a.size > 1]
        options.append(
            Option(
                left=np.moveaxis(grid, number, -1).reshape(-1),
                right=np.tile(axis.indices, flat.size // axis.size),
                frozen=np.concatenate(others) if others else NO_INDICES,
            )
        )
    if len(options) == 1:
        ties.tie(options[0].left, options[0].right)
    elif options:
        ties.choices.append(Choice(tuple(sizes), node, tuple(options)))


def runs(before: Dims, after: Dims) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes with equal products on both sides, in order.

    Free dimensions are taken to follow each other in the same order on both sides; axes of size 1
    go with the run before them. What does not come out even is one last run.
    """
    i = j = 0
    while i < len(before) or j < len(after):
        left: list[int] = []
        right: list[int] = []
        done = False
        while not done and (i < len(before) or j < len(after)):
            a, b = _product(before, left), _product(after, right)
            wants_left = not left or (bool(right) and a < b)
            if i < len(before) and (wants_left or j == len(after)):
                left.append(i)
                i += 1
            else:
                right.append(j)
                j += 1
            a, b = _product(before, left), _product(after, right)
            done = bool(left and right) and a == b
        yield left, right


def _product(dims: Dims, axes: Sequence[int]) -> tuple[int, int]:
    """(how many free dimensions, the product of the known ones)."""
    known = [dims[axis] for axis in axes]
    return known.count(None), int(np.prod([size for size in known if size is not None], dtype=int))


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "Flatten"): flatten,
    ("", "Reshape"): reshape,
}
