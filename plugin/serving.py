"""One variant alone on a fresh server: its memory, and its outputs for the evaluation samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
_BATCHES_PER_MEMORY_READING = 16


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
    log_file: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Served:
    """Serve ``name`` of ``repository`` on a fresh server and put every sample through it.

    Memory is read before the model is loaded, after, and while it answers (the highest
    reading counts). Samples go in batches of the model's ``max_batch_size`` (one by one
    without batching). Raises InputError for a model that cannot be loaded or does not take
    the samples, InfrastructureError for a server that fails.
    """
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
        specs = endpoint.model_metadata(name).inputs
        parts: dict[str, list[Array]] = {}
        highest = loaded
        starts = range(0, len(samples), batch)
        for index, start in enumerate(starts):
            inputs = {key: a[start : start + batch] for key, a in samples.inputs.items()}
            for key, value in endpoint.infer(name, inputs, specs).items():
                parts.setdefault(key, []).append(np.array(value))
            if index % _BATCHES_PER_MEMORY_READING == 0 or index == len(starts) - 1:
                highest = max(highest, tree_memory(server.pid).bytes)
            progress(min(start + batch, len(samples)), len(samples))
        metadata = endpoint.server_metadata()
    return Served(
        memory=MemoryUse(
            variant=variant,
            empty_server_pss_bytes=empty,
            loaded_pss_bytes=loaded,
            under_load_pss_bytes=highest,
            load_seconds=load_seconds,
        ),
        outputs=_join(name, parts, len(samples)),
        server=metadata,
        config=config,
    )


def _join(name: str, parts: dict[str, list[Array]], count: int) -> dict[str, Array]:
    outputs = {key: np.concatenate(values) for key, values in parts.items()}
    for key, value in outputs.items():
        if len(value) != count:
            raise InfrastructureError(
                f"model {name!r} answered {count} samples with {len(value)} rows of {key!r}; "
                "axis 0 of every output must be the batch."
            )
    return outputs
