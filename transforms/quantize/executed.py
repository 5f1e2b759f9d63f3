"""The kernels that ONNX Runtime really runs for a quantised model, from its profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize.kernels import KERNELS

# The runtime names the time of a kernel after its node, with this behind.
_SUFFIX = "_kernel_time"
_FLOATS = frozenset({"float", "float16", "double"})
_CONVERSIONS = frozenset({"DequantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True)
class Executed:
    """``kernels``: how many of each operator ran. ``unfused``: nodes that were placed in integers
    and ran in float all the same, between conversions that fused nowhere."""

    kernels: Mapping[str, int]
    unfused: tuple[str, ...]

    @property
    def conversions(self) -> int:
        """How many times numbers were converted from float or to it."""
        return sum(self.kernels.get(name, 0) for name in _CONVERSIONS)


def executed_kernels(
    model: ir.Model, nodes: Collection[str], feed: Mapping[str, Array]
) -> Executed:
    """Run ``model``, whose ``nodes`` are quantised, once on ``feed`` with the runtime's profiler.

    Raises one of session.ORT_ERRORS where it cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        session = open_session(model, optimise=True, profile=Path(folder) / "profile")
        run(session, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels: Counter[str] = Counter()
    unfused: list[str] = []
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        op_type, name = event["args"]["op_name"], event["name"].removesuffix(_SUFFIX)
        kernels[op_type] += 1
        if name in nodes and op_type in KERNELS and _reads_floats(event["args"]):
            unfused.append(name)
    return Executed(dict(kernels.most_common()), tuple(unfused))


def _reads_floats(arguments: Mapping[str, Any]) -> bool:
    """Whether the first input of a kernel, its activation, is in float."""
    types = arguments.get("input_type_shape") or [{}]
    return bool(_FLOATS & set(types[0]))
