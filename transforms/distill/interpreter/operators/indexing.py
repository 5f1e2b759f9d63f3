"""Elements picked and put by indices, which count from behind below 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.table import Builder

# Indices as torch takes them, for an axis of the size given.
_Places = Callable[[Tensor, int], Tensor]


def _from_front(indices: Tensor, size: int) -> Tensor:
    places = indices.to(torch.int64)
    return torch.where(places < 0, places + size, places)


def _places(view: NodeView, index: int) -> _Places:
    """``_from_front``, computed once where the indices of input ``index`` are known."""
    known = view.known_at(index)
    if known is not None and (known.numel() == 0 or int(known.min()) >= 0):
        fixed = known.to(torch.int64)
        return lambda _, __: fixed
    return _from_front


def gather(view: NodeView) -> Kernel:
    """data at ``indices`` along ``axis``."""
    axis, places, single = view.integer("axis", 0), _places(view, 1), view.known_at(1)
    if single is not None and single.ndim == 0:
        place = int(single.item())
        return lambda data, _: data.select(axis, place)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        start = axis % data.ndim
        chosen = places(indices, data.shape[start])
        made = data.index_select(start, chosen.reshape(-1))
        return made.reshape(*data.shape[:start], *chosen.shape, *data.shape[start + 1 :])

    return run


def gather_elements(view: NodeView) -> Kernel:
    """data[i][index[i][j]] for axis 1, and so on."""
    axis, places = view.integer("axis", 0), _places(view, 1)
    return lambda data, indices: data.gather(axis, places(indices, data.shape[axis]))


def gather_nd(view: NodeView) -> Kernel:
    """data at the tuples in the last axis of ``indices``, behind ``batch_dims`` shared axes."""
    shared = view.integer("batch_dims", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        sizes = data.shape[shared : shared + indices.shape[-1]]
        tuples = [
            _from_front(column, size)
            for column, size in zip(indices.unbind(-1), sizes, strict=True)
        ]
        lead = [
            torch.arange(count).reshape([-1 if i == axis else 1 for i in range(indices.ndim - 1)])
            for axis, count in enumerate(indices.shape[:shared])
        ]
        return data[(*lead, *tuples)]

    return run


_SCATTER_REDUCTIONS = {"add": "sum", "max": "amax", "min": "amin", "mul": "prod"}


def scatter_elements(view: NodeView) -> Kernel:
    """data with ``updates`` at the places that gather_elements would read."""
    axis, places = view.integer("axis", 0), _places(view, 1)
    reduction = view.text("reduction", "none")

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        chosen = places(indices, data.shape[axis])
        if reduction == "none":
            return data.scatter(axis, chosen, updates)
        return data.scatter_reduce(axis, chosen, updates, _SCATTER_REDUCTIONS[reduction])

    return run


def scatter_nd(view: NodeView) -> Kernel:
    """data with ``updates`` at the tuples in the last axis of ``indices``."""
    reduction = view.text("reduction", "none")

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        rows = torch.zeros(indices.shape[:-1], dtype=torch.int64)
        for column, size in zip(indices.unbind(-1), data.shape[:depth], strict=True):
            rows = rows * size + _from_front(column, size)
        tail = data.shape[depth:]
        flat = data.reshape(-1, *tail)
        values = updates.reshape(-1, *tail)
        if reduction == "none":
            return flat.index_copy(0, rows.reshape(-1), values).reshape(data.shape)
        places = rows.reshape(-1, *[1] * len(tail)).expand(values.shape)
        name = _SCATTER_REDUCTIONS[reduction]
        return flat.scatter_reduce(0, places, values, name).reshape(data.shape)

    return run


def compress(view: NodeView) -> Kernel:
    """What stands where the condition holds, along ``axis`` or in the flat tensor."""
    axis = view.node.attributes.get_int("axis", None)

    def run(data: Tensor, condition: Tensor) -> Tensor:
        chosen = condition.nonzero().reshape(-1)
        return data.reshape(-1)[chosen] if axis is None else data.index_select(axis, chosen)

    return run


def non_zero(_: NodeView) -> Kernel:
    """The places of what is not 0, one column each."""
    return lambda x: x.nonzero().t()


def reverse_sequence(view: NodeView) -> Kernel:
    """The first ``lengths`` elements of every sequence turned round."""
    time, batch = view.integer("time_axis", 0), view.integer("batch_axis", 1)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(x.shape[time])
        turned = lengths.to(torch.int64)[:, None] - 1 - steps
        places = torch.where(turned >= 0, turned, steps)  # [batch, time]
        places = places if batch < time else places.t()
        shape = [x.shape[axis] if axis in (time, batch) else 1 for axis in range(x.ndim)]
        return x.gather(time, places.reshape(shape).expand(x.shape))

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Compress"): compress,
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "NonZero"): non_zero,
    ("", "ReverseSequence"): reverse_sequence,
    ("", "Scatter"): scatter_elements,  # its name before operator set 11
    ("", "ScatterElements"): scatter_elements,
    ("", "ScatterND"): scatter_nd,
}
