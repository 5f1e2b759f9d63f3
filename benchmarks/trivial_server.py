"""A real Triton with a model that does next to nothing, and an arm that loads it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client_latency import TRIVIAL, write_trivial_model

from trimton.perf.load.arms import ServedArm
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.requests import prepare_requests
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer


@dataclass(frozen=True)
class TrivialServer:
    """The running server and what loads its one model over HTTP."""

    server: TritonServer
    arm: ServedArm


@contextmanager
def trivial_server() -> Iterator[TrivialServer]:
    """Serve until the block ends."""
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "models"
        write_trivial_model(repository)
        with (
            TritonServer.start(repository, log_file=Path(scratch) / "log") as server,
            Endpoint(server.http_url) as endpoint,
        ):
            specs = endpoint.model_metadata(TRIVIAL).inputs
            feeds = random_feeds(specs, batch=1, count=64, seed=0)
            requests = prepare_requests(server.http_url, TRIVIAL, feeds, specs)
            yield TrivialServer(
                server, ServedArm(TRIVIAL, endpoint, TRIVIAL, requests, pid=server.pid)
            )
