"""The inputs of requests in perf_analyzer's own form, so that both engines send the same bytes.

Source: perf_analyzer, "Input Data": ``{"data": [{INPUT: {"b64": ..., "shape": [...]}}, ...]}``,
one entry for each sample; a model without batching takes an entry as the whole request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimton.core.files import write_text
from trimton.perf.targets.tensors import Array, TensorSpec, pack


def write_input_data(
    path: Path, feeds: Sequence[Mapping[str, Array]], specs: Sequence[TensorSpec], *, batches: bool
) -> None:
    """Write ``feeds`` (inputs by name) to ``path``; ``batches``: their first axis is the batch."""
    datatypes = {spec.name: spec.datatype for spec in specs}
    entries = [
        {name: _tensor(array, datatypes[name]) for name, array in sample.items()}
        for feed in feeds
        for sample in (_samples(feed) if batches else [feed])
    ]
    write_text(path, json.dumps({"data": entries}))


def _samples(feed: Mapping[str, Array]) -> list[dict[str, Array]]:
    count = len(next(iter(feed.values())))
    return [{name: array[index, ...] for name, array in feed.items()} for index in range(count)]


def _tensor(array: Array, datatype: str) -> dict[str, Any]:
    # A batched scalar has no dimensions left, but perf_analyzer wants at least one.
    shape = list(array.shape) or [1]
    if datatype == "BYTES":
        texts = [_text(value) for value in array.reshape(-1).tolist()]
        return {"content": texts, "shape": shape}
    return {"b64": base64.b64encode(pack(array, datatype)).decode("ascii"), "shape": shape}


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
