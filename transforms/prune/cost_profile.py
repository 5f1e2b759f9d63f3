"""Time of every layer on this machine, as ONNX Runtime's profiler sees it, and whole models' speed.

A layer's time is not in proportion to its work: starting a kernel costs too. So the model is
profiled whole and with half of all channels, which gives both parts for each layer.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from trimton.transforms.graph.edit import Array, only_consumer
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import bind_free_dims
from trimton.transforms.prune.cost_model import CostModel, layer_shares
from trimton.transforms.prune.groups import Prunable
from trimton.transforms.prune.ties import Layer

Feed = Mapping[str, Array]
# A copy of the model whose groups keep so many sets, whichever: as fast as any other such copy.
Trial = Callable[[Sequence[int]], ir.Model]

_PROFILED_RUNS = 100
_WARM_UP_RUNS = 10
_PAIRS = 1000
_LEAST_PAIRS = 15
_PAIRS_SECONDS = 2.0
# What ONNX Runtime appends to the names of nodes that it rewrites, and to all in a profile.
_KERNEL = "_kernel_time"
_REWRITTEN = "_nchwc"


def mac_model(model: ir.Model, found: Prunable) -> CostModel:
    """Cost in multiply-accumulates of one sample."""
    sized = model.clone()
    bind_free_dims(sized, {})
    twins = {id(node): twin for node, twin in zip(model.graph, sized.graph, strict=True)}
    macs = np.array([node_macs(twins[id(layer.node)]) or 0 for layer in found.ties.layers], float)
    return CostModel(*layer_shares(found), np.zeros(len(macs)), macs, 0.0)


def time_model(model: ir.Model, found: Prunable, trial: Trial, feed: Feed) -> CostModel:
    """Cost in microseconds of one run on ``feed``. ``found`` must belong to this very model."""
    layers = found.ties.layers
    whole, rest = _layer_times(model, layers, feed)
    half = [len(group.sets) - len(group.sets) // 2 for group in found.groups]
    halved, _ = _layer_times(trial(half), layers, feed)
    outputs, inputs = layer_shares(found)
    share = np.array([k / len(g.sets) for g, k in zip(found.groups, half, strict=True)])
    work = outputs.kept(share) * inputs.kept(share)
    slope = (whole - halved) / np.maximum(1 - work, 1e-9)
    variable = np.where(work < 1, np.clip(slope, 0, whole), whole)
    return CostModel(outputs, inputs, whole - variable, variable, rest)


def speedup(model: ir.Model, other: ir.Model, feed: Feed) -> float:
    """How many times ``other`` is as fast as ``model``, from interleaved runs of both.

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


def first_sample(model: ir.Model, samples: Feed) -> Feed:
    """A feed of one sample, or of as many as a fixed batch has."""
    given = {value.name: value for value in model.graph.inputs}
    feed: dict[str, Array] = {}
    for name, array in samples.items():
        value = given.get(name)
        dim = value.shape[0] if value is not None and value.shape else None
        feed[name] = array[: dim if isinstance(dim, int) else 1]
    return {name: array for name, array in feed.items() if name in given}


def _layer_times(model: ir.Model, layers: Sequence[Layer], feed: Feed) -> tuple[Array, float]:
    """Microseconds of each of ``layers``, found by name in ``model``, and of all other kernels."""
    kernels = _kernel_times(model, feed)
    nodes = {node.outputs[0].name: node for node in model.graph}
    times = np.zeros(len(layers))
    claimed: set[str] = set()
    for row, layer in enumerate(layers):
        node = nodes.get(layer.node.outputs[0].name)
        name = next((n for n in _names(node) if n in kernels and n not in claimed), None)
        if name is not None:
            times[row] = kernels[name]
            claimed.add(name)
    return times, sum(kernels.values()) - float(times.sum())


def _names(node: ir.Node | None) -> Iterator[str]:
    """What a layer's kernel may be called: after its node or output, or what is fused into it."""
    while node is not None:
        yield from filter(None, (node.name, node.outputs[0].name))
        node = only_consumer(node.outputs[0])


def _kernel_times(model: ir.Model, feed: Feed) -> dict[str, float]:
    """The time of every kernel in microseconds, by the name of its node."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        session = open_session(model, optimise=True, profile=Path(folder) / "profile")
        for _ in range(_PROFILED_RUNS):
            run(session, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL).removesuffix(_REWRITTEN)
            durations[name].append(event["dur"])
    return {name: _undisturbed(times) for name, times in durations.items()}


def _seconds(session: ort.InferenceSession, feed: Feed) -> float:
    start = time.perf_counter()
    run(session, feed)
    return time.perf_counter() - start
