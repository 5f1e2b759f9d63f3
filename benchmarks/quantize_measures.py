"""What becomes of a quantised model in ONNX Runtime: its kernels, its noise, its latency."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from evaluation.evaluation import Array, Feed, predictor

# Operators of ONNX Runtime's own that compute on integers, by the start of their name.
_INTEGER = (
    *("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantize"),
    *("MatMulNBits", "NhwcMaxPool", "QMoE", "QEmbed"),
)
_WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Kernels:
    """What ran for one request.

    ``integer`` and ``others`` count nodes by operator. ``idle`` counts what fuses nowhere: a
    QuantizeLinear whose integers only a DequantizeLinear reads, and a weight that is made float
    again at each run.
    """

    integer: Mapping[str, int]
    others: Mapping[str, int]
    idle: int

    def line(self) -> str:
        """Every integer kernel with its count, then conversions and what is idle."""
        names = [f"{name} {count}" for name, count in sorted(self.integer.items())]
        for name in ("QuantizeLinear", "DequantizeLinear"):
            names += [f"{name} {self.others[name]}"] if name in self.others else []
        return f"{', '.join(names) or 'no integer kernel'}; idle {self.idle}"


def kernels(model: Path, request: Feed) -> Kernels:
    """The kernels of one run, from the profile of ONNX Runtime and the graph that it made."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, dict(request))
        events = json.loads(Path(session.end_profiling()).read_text())
        graph = onnx.load(f"{folder}/optimised.onnx").graph
    ran = Counter(
        event["args"]["op_name"]
        for event in events
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    )
    integer = {name: n for name, n in ran.items() if name.startswith(_INTEGER)}
    others = {name: n for name, n in ran.items() if name not in integer}
    return Kernels(integer, others, _idle(graph))


def _idle(graph: onnx.GraphProto) -> int:
    """Conversions of ``graph`` and its subgraphs that no integer kernel is behind or before."""
    readers: dict[str, set[str]] = {output.name: {"output"} for output in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    constants = {tensor.name for tensor in graph.initializer}
    inner = (a.g for node in graph.node for a in node.attribute if a.type == a.GRAPH)
    return sum(map(_idle, inner)) + sum(
        node.input[0] in constants
        if node.op_type == "DequantizeLinear"
        else node.op_type == "QuantizeLinear"
        and readers.get(node.output[0]) == {"DequantizeLinear"}
        for node in graph.node
    )


@dataclass(frozen=True)
class Noise:
    """Root mean squares, relative to those of the float model's outputs.

    ``quantisation`` is how far the quantised model is from the float one with every operator as
    ONNX defines it; ``fused`` how far the fused kernels are from that. Kernels whose sums
    saturate make ``fused`` the larger one.
    """

    quantisation: float
    fused: float

    @property
    def ratio(self) -> float:
        return self.fused / self.quantisation if self.quantisation else np.inf


def noise(float_model: Path, model: Path, requests: Sequence[Feed]) -> Noise:
    """Compare the outputs for ``requests``: float, quantised as defined, quantised and fused."""
    sessions = (
        predictor(float_model),
        predictor(model, optimise=False),
        predictor(model),
    )
    reference, defined, fused = (
        _floats([predict(request) for request in requests]) for predict in sessions
    )
    scale = _rms(reference)
    return Noise(_rms(defined - reference) / scale, _rms(fused - defined) / scale)


def _floats(outputs: Sequence[Feed]) -> Array:
    """All numbers of all float outputs."""
    parts = []
    for name, first in outputs[0].items():
        if first.dtype == np.float32:
            parts.append(np.concatenate([output[name].ravel() for output in outputs]))
    return np.concatenate(parts).astype(np.float64)


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


def latencies_ms(models: Mapping[str, Path], request: Feed, seconds: float) -> dict[str, Array]:
    """Milliseconds of single requests by model, one thread; the models take turns.

    Each array has one number for each round: entries of a round belong together.
    """
    sessions = {name: predictor(path, threads=1) for name, path in models.items()}
    for predict in sessions.values():
        for _ in range(_WARM_UP_ROUNDS):
            predict(request)
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 15:
        times = []
        for predict in sessions.values():
            start = time.perf_counter()
            predict(request)
            times.append(1e3 * (time.perf_counter() - start))
        rounds.append(times)
    table = np.array(rounds)
    return {name: table[:, column] for column, name in enumerate(sessions)}
