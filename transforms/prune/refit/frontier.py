"""Frontier: values that change no more, kept so that a pass over the samples need not start anew.

A refit goes through the network layer by layer. What does not depend on a layer still to come is
final; where it is handed on, it is kept for all samples, and the next pass starts from there.
What is kept never takes more than a fixed number of bytes: where it would, passes start further
back, at worst from the inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.refit.taps import Taps

_BUDGET_BYTES = 2**29


class Frontier:
    """Runs ``model``, whose weights may change meanwhile, on all of ``samples``."""

    def __init__(
        self, model: ir.Model, samples: Mapping[str, Array], budget_bytes: int = _BUDGET_BYTES
    ) -> None:
        self.model = model
        self._feeds = tuple(batches(model, samples))
        self._budget_bytes = budget_bytes
        # What is kept of each batch, by name of the value.
        self._kept: tuple[Mapping[str, Array], ...] = ({},) * len(self._feeds)

    def run(self, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """The values ``names`` of each batch, in order.

        Raises InputError where the model cannot be run on the samples.
        """
        held = self._kept[0]
        missing = [name for name in names if name not in held]
        taps = Taps(_from(self.model, held), missing) if missing else None
        for feed, kept in zip(self._feeds, self._kept, strict=True):
            made = {} if taps is None else taps({**feed, **kept})
            yield {name: kept[name] if name in kept else made[name] for name in names}

    def settle(self, changing: Collection[str]) -> None:
        """Keep what is final, given that only the nodes that make ``changing`` may still change."""
        names = _handed_on(self.model.graph, changing)
        if not names or set(names) == set(self._kept[0]):
            return
        kept: list[Mapping[str, Array]] = []
        used = 0
        for values in self.run(names):
            used += sum(array.nbytes for array in values.values())
            if used > self._budget_bytes:
                return
            kept.append(values)
        self._kept = tuple(kept)


def _handed_on(graph: ir.Graph, changing: Collection[str]) -> list[str]:
    """What nodes that do not depend on ``changing`` make from the inputs for nodes that do.

    Nothing where one of these values is no plain tensor of numbers.
    """
    fed = {id(value) for value in graph.inputs}
    moved: set[int] = set()
    wanted: dict[int, ir.Value] = {}
    for node in graph:
        read = tuple(_reads(node))
        made = {id(output) for output in node.outputs}
        if any(id(value) in fed for value in read):
            fed |= made
        if any(id(value) in moved for value in read) or any(
            output.name in changing for output in node.outputs
        ):
            moved |= made
            final = (value for value in read if id(value) in fed and id(value) not in moved)
            wanted.update((id(value), value) for value in final if value.producer() is not None)
    if not all(_is_plain(value) for value in wanted.values()):
        return []
    return [value.name for value in wanted.values() if value.name]


def _is_plain(value: ir.Value) -> bool:
    is_tensor = value.type is None or isinstance(value.type, ir.TensorType)
    return is_tensor and value.dtype is not ir.DataType.STRING


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What ``node`` and the bodies in it read."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs_of(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            yield from (value for value in inner.inputs if value is not None)
        yield from graph.outputs


def _from(model: ir.Model, held: Mapping[str, Array]) -> ir.Model:
    """``model``, or a copy of it that reads the values ``held`` instead of making them."""
    if not held:
        return model
    copy = model.clone()
    for value in [output for node in copy.graph for output in node.outputs if output.name in held]:
        array = held[value.name or ""]
        given = ir.Value(
            name=value.name,
            type=ir.TensorType(ir.DataType.from_numpy(np.dtype(array.dtype))),
            shape=ir.Shape([None] * array.ndim),
        )
        value.name = f"{value.name}/made"
        value.replace_all_uses_with(given, replace_graph_outputs=True)
        copy.graph.inputs.append(given)
    return copy
