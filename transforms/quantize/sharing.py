"""Which values share one encoding: the numbers of a move are the same before and after it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, only_consumer
from trimton.transforms.quantize.kernels import Role
from trimton.transforms.quantize.sites import ActivationSite


def sites(
    values: Iterable[ir.Value],
    roles: dict[ir.Node, Role],
    dtypes: dict[ir.Value, ir.DataType],
    symmetric: bool,
) -> tuple[ActivationSite, ...]:
    """``values``, in graph order, grouped by the encoding they share.

    ``roles`` are those of the nodes that compute in integers. A group is measured where its
    numbers come from: not behind a move, nor before a Concat that passes them on.
    """
    ordered = list(dict.fromkeys(values))
    leader = {value: value for value in ordered}

    def find(value: ir.Value) -> ir.Value:
        while leader[value] is not value:
            leader[value] = leader[leader[value]]
            value = leader[value]
        return value

    derived: set[ir.Value] = set()
    for node, role in roles.items():
        for source, result in _ties(node, role):
            if source not in leader or result not in leader:
                continue
            first, second = find(source), find(result)
            leader[second] = first
            derived.add(source if node.op_type == "Concat" else result)
    groups: dict[ir.Value, list[ir.Value]] = {}
    for value in ordered:
        groups.setdefault(find(value), []).append(value)
    return tuple(_site(group, derived, dtypes, symmetric) for group in groups.values())


def _ties(node: ir.Node, role: Role) -> Iterable[tuple[ir.Value, ir.Value]]:
    """(input, output) pairs of ``node`` that share an encoding."""
    source = node.inputs[0]
    if role is Role.MOVE and source is not None:
        return [(source, output) for output in node.outputs]
    if node.op_type != "Concat":
        return []
    return [
        (value, node.outputs[0])
        for value in node.inputs
        if value is not None and constant(value) is None and only_consumer(value) is node
    ]


def _site(
    group: list[ir.Value],
    derived: set[ir.Value],
    dtypes: dict[ir.Value, ir.DataType],
    symmetric: bool,
) -> ActivationSite:
    measured = [value for value in group if value not in derived] or group
    ordered = [*measured, *(value for value in group if value not in measured)]
    types = {dtypes[value] for value in group}
    return ActivationSite(
        values=tuple(value.name or "" for value in ordered),
        measured=tuple(value.name or "" for value in measured),
        dtype=dtypes[group[0]] if len(types) == 1 else min(types, key=lambda dtype: dtype.value),
        symmetric=symmetric,
    )
