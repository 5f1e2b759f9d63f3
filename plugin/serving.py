"""One variant alone on fresh servers: its memory, and its outputs for the evaluation samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from trimton.core.errors import InfrastructureError
from trimton.perf.measure.processes import tree_memory
from trimton.perf.results import MemoryUse
from trimton.perf.targets.endpoint import Endpoint, ServerMetadata
from trimton.plugin.samples import Samples
from trimton.plugin.server.process import TritonServer

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
_BATCHES_WITH_MEMORY = 32  # the runtime's arena has its size after a few


@dataclass(frozen=True)
class Served:
    """What serving one variant alone showed; ``config`` is the server's resolved configuration."""

    memory: MemoryUse
    outputs: dict[str, Array]
    server: ServerMetadata
    config: dict[str, Any]


def serve_alone(
    repository: Path,
    name: str,
    samples: Samples,
    *,
    variant: str,
    servers: int,
    log_file: Path,
    progress: Progress = lambda done, total: None,
) -> Served:
    """Serve ``name`` of ``repository`` on ``servers`` fresh servers, one after the other.

    Each loads the model and answers the same first samples while its memory is read; the last
    one answers all of them. Samples go in batches of the model's ``max_batch_size`` (one by one
    without batching). Raises InputError for a model that cannot be loaded or does not take the
    samples, InfrastructureError for a server that fails.
    """
    readings: list[_Reading] = []
    while len(readings) < servers:
        with (
            TritonServer.start(repository, load=(), log_file=log_file) as server,
            Endpoint(server.http_url) as endpoint,
        ):
            empty = tree_memory(server.pid).bytes
            started = time.monotonic()
            server.control.load(name)
            load_seconds = time.monotonic() - started
            loaded = tree_memory(server.pid).bytes
            config = endpoint.model_config(name)
            batch = max(int(config.get("max_batch_size", 0)), 1)
            first = samples.first(batch * _BATCHES_WITH_MEMORY)
            highest = loaded
            for _ in _answers(endpoint, name, first, batch):
                highest = max(highest, tree_memory(server.pid).bytes)
            readings.append(_Reading(empty, loaded, highest, load_seconds))
            if len(readings) == servers:
                outputs = _all_outputs(endpoint, name, samples, batch, progress)
                metadata = endpoint.server_metadata()
    return Served(_median(variant, readings), outputs, metadata, config)


@dataclass(frozen=True)
class _Reading:
    """Memory of one fresh server in bytes, and how long it took to load the model."""

    empty: int
    loaded: int
    highest: int
    load_seconds: float


def _median(variant: str, readings: Sequence[_Reading]) -> MemoryUse:
    return MemoryUse(
        variant=variant,
        empty_server_pss_bytes=int(median(r.empty for r in readings)),
        loaded_pss_bytes=int(median(r.loaded for r in readings)),
        under_load_pss_bytes=int(median(r.highest for r in readings)),
        load_seconds=median(r.load_seconds for r in readings),
        under_load_readings=tuple(r.highest for r in readings),
    )


def _answers(
    endpoint: Endpoint, name: str, samples: Samples, batch: int
) -> Iterator[dict[str, Array]]:
    specs = endpoint.model_metadata(name).inputs
    for start in range(0, len(samples), batch):
        inputs = {key: array[start : start + batch] for key, array in samples.inputs.items()}
        yield endpoint.infer(name, inputs, specs)


def _all_outputs(
    endpoint: Endpoint, name: str, samples: Samples, batch: int, progress: Progress
) -> dict[str, Array]:
    parts: dict[str, list[Array]] = {}
    for index, answer in enumerate(_answers(endpoint, name, samples, batch), 1):
        for key, value in answer.items():
            parts.setdefault(key, []).append(np.array(value))
        progress(min(index * batch, len(samples)), len(samples))
    return _join(name, parts, len(samples))


def _join(name: str, parts: dict[str, list[Array]], count: int) -> dict[str, Array]:
    outputs = {key: np.concatenate(values) for key, values in parts.items()}
    for key, value in outputs.items():
        if len(value) != count:
            raise InfrastructureError(
                f"model {name!r} answered {count} samples with {len(value)} rows of {key!r}; "
                "axis 0 of every output must be the batch."
            )
    return outputs
