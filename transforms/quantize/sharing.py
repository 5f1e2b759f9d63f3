"""Which values share one encoding: the numbers of a move are the same before and after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, only_consumer
from trimton.transforms.quantize.clipping import clip_bounds
from trimton.transforms.quantize.joining import Joined
from trimton.transforms.quantize.roles import Role, scaling
from trimton.transforms.quantize.sites import ActivationSite

_FREE = (float("-inf"), float("inf"))


class Sharing:
    """The values ``encoded`` (in graph order), grouped by the encoding that they share.

    A group is measured where its numbers come from: not behind a move, nor before a Concat that
    passes them on. A Concat shares only among inputs with the same bounds: beside signed numbers
    the encoding of a Relu's output would no longer stand for the Relu.
    """

    def __init__(self, encoded: Iterable[ir.Value], joined: Joined) -> None:
        self._ordered = list(dict.fromkeys(encoded))
        self._leader = {value: value for value in self._ordered}
        self._derived: set[ir.Value] = set()
        self._bounds: dict[ir.Value, tuple[float, float]] = {
            node.outputs[0]: _bounds_of(node) for node in joined.absorbed
        }
        self._scaled: dict[ir.Value, tuple[ir.Value, float]] = {
            node.outputs[0]: found
            for node, role in joined.roles.items()
            if role is Role.SCALE and (found := scaling(node)) is not None
        }
        for node, role in joined.roles.items():
            if role is Role.MOVE and node.inputs[0] is not None:
                for output in node.outputs:
                    self._tie(node.inputs[0], output, derived=output)
            elif node.op_type == "Concat":
                self._tie_concat(node)

    def sites(
        self, dtypes: Mapping[ir.Value, ir.DataType], symmetric: bool
    ) -> tuple[ActivationSite, ...]:
        """The groups; ``dtypes`` has the type of every value."""
        groups: dict[ir.Value, list[ir.Value]] = {}
        for value in self._ordered:
            groups.setdefault(self._find(value), []).append(value)
        return tuple(self._site(root, group, dtypes, symmetric) for root, group in groups.items())

    def _site(
        self,
        root: ir.Value,
        group: list[ir.Value],
        dtypes: Mapping[ir.Value, ir.DataType],
        symmetric: bool,
    ) -> ActivationSite:
        origins = [value for value in group if value not in self._derived]
        ordered = [*origins, *(value for value in group if value in self._derived)]
        source, factor = self._scaled.get(root, (None, 1.0))
        return ActivationSite(
            values=tuple(value.name or "" for value in ordered),
            measured=() if source is not None else tuple(value.name or "" for value in origins),
            dtype=dtypes[group[0]],
            symmetric=symmetric,
            bounds=self._bounds.get(root, _FREE),
            source=None if source is None else source.name,
            factor=factor,
        )

    def _tie_concat(self, node: ir.Node) -> None:
        inputs = [v for v in node.inputs if v is not None and constant(v) is None]
        roots = [self._find(value) for value in inputs if value in self._leader]
        bounds = {self._bounds.get(root, _FREE) for root in roots}
        if len(roots) < len(inputs) or len(bounds) > 1 or any(r in self._scaled for r in roots):
            return
        if any(only_consumer(value) is not node for value in inputs):
            return
        for value in inputs:
            self._tie(value, node.outputs[0], derived=value)

    def _tie(self, source: ir.Value, result: ir.Value, derived: ir.Value) -> None:
        if source not in self._leader or result not in self._leader:
            return
        self._leader[self._find(result)] = self._find(source)
        self._derived.add(derived)

    def _find(self, value: ir.Value) -> ir.Value:
        while self._leader[value] is not value:
            self._leader[value] = self._leader[self._leader[value]]
            value = self._leader[value]
        return value


def _bounds_of(node: ir.Node) -> tuple[float, float]:
    low, high = clip_bounds(node)
    return (_FREE[0] if low is None else low, _FREE[1] if high is None else high)
