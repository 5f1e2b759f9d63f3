"""Times of the kernels of several models, from ONNX Runtime's profiler in interleaved runs.

What else runs on the machine slows all models alike then, and only adds: the lower quartile of
the runs of each kernel is taken.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from trimton.transforms.graph.edit import Array, only_consumer
from trimton.transforms.graph.session import open_session, run

KernelTimes = Mapping[str, float]

_RUNS = 60
_WARM_UP_RUNS = 5
_KERNEL = "_kernel_time"
# What ONNX Runtime appends to the names of nodes that it rewrites.
_REWRITTEN = ("_nchwc", "/MatMulAddFusion")


def kernel_times(models: Sequence[ir.Model], feed: Mapping[str, Array]) -> tuple[KernelTimes, ...]:
    """Microseconds of every kernel of each model in one run on ``feed``, by its node's name.

    Raises one of session.ORT_ERRORS where a model cannot be run.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trimton-"))
        sessions = [
            open_session(
                model, optimise=True, profile=Path(folder) / str(number), stop_spinning=True
            )
            for number, model in enumerate(models)
        ]
        for _ in range(_WARM_UP_RUNS + _RUNS):
            for session in sessions:
                run(session, feed)
        return tuple(_times(session) for session in sessions)


def node_time(times: KernelTimes, node: ir.Node) -> float | None:
    """The time of the kernel that computes ``node``; None where none is known by its name."""
    name = kernel_name(times, node)
    return None if name is None else times[name]


def kernel_name(times: KernelTimes, node: ir.Node) -> str | None:
    """What the kernel that computes ``node`` is called: it may be after what is fused into it."""
    return next((name for name in _names(node) if name in times), None)


def _names(node: ir.Node | None) -> Iterator[str]:
    while node is not None:
        yield from filter(None, (node.name, node.outputs[0].name))
        node = only_consumer(node.outputs[0])


def _times(session: ort.InferenceSession) -> KernelTimes:
    durations: dict[str, list[float]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            for suffix in _REWRITTEN:
                name = name.removesuffix(suffix)
            durations[name].append(event["dur"])
    return {
        name: float(np.quantile(times[_WARM_UP_RUNS:], 0.25)) for name, times in durations.items()
    }
