"""Time of every layer on this machine, as ONNX Runtime's profiler sees it, and whole models' speed.

A layer's time is not in proportion to its work: starting a kernel costs too, and small ones leave
vector units idle. So the model is profiled in turn with copies that have fewer and fewer channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.kernel_times import KernelTimes, kernel_name, kernel_times
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import bind_free_dims
from trimton.transforms.prune.cost_model import CostModel, layer_shares, work_left
from trimton.transforms.prune.groups import Prunable

Feed = Mapping[str, Array]
# A copy of the model whose groups keep so many sets, whichever: as fast as any other such copy.
Trial = Callable[[Sequence[int]], ir.Model]

_MEASUREMENTS = 3
_WARM_UP_RUNS = 10
_PAIRS = 400
_LEAST_PAIRS = 5
_PAIRS_SECONDS = 0.7


def mac_model(model: ir.Model, found: Prunable) -> CostModel:
    """Cost in multiply-accumulates of one sample."""
    sized = model.clone()
    bind_free_dims(sized, {})
    twins = {id(node): twin for node, twin in zip(model.graph, sized.graph, strict=True)}
    macs = np.array([node_macs(twins[id(layer.node)]) or 0 for layer in found.ties.layers], float)
    ends = np.outer([0.0, 1.0], np.ones(len(macs)))
    return CostModel(*layer_shares(found), ends, ends * macs, 0.0)


def time_model(
    model: ir.Model, found: Prunable, trial: Trial, levels: Sequence[Sequence[int]], feed: Feed
) -> CostModel:
    """Cost in microseconds of one run on ``feed``. ``found`` must belong to this very model.

    ``levels`` are the sets that each group keeps in the copies to profile, fewest first.
    """
    layers = found.ties.layers
    copies = [trial(kept) for kept in levels]
    *cut, whole = kernel_times([*copies, model], feed)
    rows: list[Array] = []
    for copy, times in zip(copies, cut, strict=True):
        by_output = {node.outputs[0].name: node for node in copy.graph}
        rows.append(_times_of(times, [by_output.get(la.node.outputs[0].name) for la in layers]))
    now = _times_of(whole, [layer.node for layer in layers])
    outputs, inputs = layer_shares(found)
    work = np.array([work_left(outputs, inputs, found.groups, kept) for kept in levels])
    # A layer that no cut changes costs what it does in the whole model.
    costs = np.where(work < 1, np.array(rows), now)
    return CostModel(
        outputs,
        inputs,
        np.vstack([work, np.ones(len(layers))]),
        np.minimum.accumulate(np.vstack([costs, now])[::-1])[::-1],
        sum(whole.values()) - float(now.sum()),
    )


def speedup(model: ir.Model, other: ir.Model, feed: Feed) -> float:
    """How many times ``other`` is as fast as ``model``: the median of three measurements.

    Each has sessions of its own, whose memory may lie better or worse.
    """
    return float(np.median([_speedup_once(model, other, feed) for _ in range(_MEASUREMENTS)]))


def _speedup_once(model: ir.Model, other: ir.Model, feed: Feed) -> float:
    """From interleaved runs of both.

    The lower quartiles of both times are compared: what else runs on the machine only adds.
    """
    sessions = [open_session(each, optimise=True, stop_spinning=True) for each in (model, other)]
    for session in sessions:
        for _ in range(_WARM_UP_RUNS):
            run(session, feed)
    seconds: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(seconds[0]) < _LEAST_PAIRS or (
        len(seconds[0]) < _PAIRS and time.perf_counter() - start < _PAIRS_SECONDS
    ):
        for session, times in zip(sessions, seconds, strict=True):
            times.append(_seconds(session, feed))
    return _undisturbed(seconds[0]) / _undisturbed(seconds[1])


def _undisturbed(times: Sequence[float]) -> float:
    """The lower quartile."""
    return float(np.quantile(times, 0.25))


def first_samples(model: ir.Model, samples: Feed, batch: int = 1) -> Feed:
    """A feed of ``batch`` samples, or of as many as a fixed batch has."""
    given = {value.name: value for value in model.graph.inputs}
    feed: dict[str, Array] = {}
    for name, array in samples.items():
        value = given.get(name)
        dim = value.shape[0] if value is not None and value.shape else None
        feed[name] = array[: dim if isinstance(dim, int) else batch]
    return {name: array for name, array in feed.items() if name in given}


def _times_of(times: KernelTimes, nodes: Sequence[ir.Node | None]) -> Array:
    """Microseconds of ``nodes``, 0 where no kernel is known by their names; none counts twice."""
    found = np.zeros(len(nodes))
    left = dict(times)
    for row, node in enumerate(nodes):
        name = None if node is None else kernel_name(left, node)
        if name is not None:
            found[row] = left.pop(name)
    return found


def _seconds(session: ort.InferenceSession, feed: Feed) -> float:
    start = time.perf_counter()
    run(session, feed)
    return time.perf_counter() - start
