"""How requests travel to a server: protocol, security, headers, compression, shared memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.protocols import (
    PROTOCOLS,
    PreparedLoad,
    WireProtocol,
    prepare_load,
    prepare_requests_of,
)
from trimton.perf.load.shared_memory import in_shared_memory, sizes_of_outputs
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec
from trimton.perf.targets.tls import Tls


@dataclass(frozen=True)
class Wire:
    """``shared_memory`` leaves tensors in the memory of this machine (Triton's extension)."""

    protocol: WireProtocol = PROTOCOLS["http"]
    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    compressed: bool = False
    shared_memory: bool = False

    @property
    def is_special(self) -> bool:
        """Whether it asks for anything that only a server has."""
        return self.shared_memory or self.compressed or self.protocol.name != "http"

    def access(self, url: str) -> Access:
        """How to reach the server at ``url``; InputError where that is no address."""
        protocol = self.protocol
        address = Address.parse(url, protocol.default_port, protocol.port_of)
        return Access(address, self.tls, self.headers)

    def prepare(
        self,
        endpoint: ModelEndpoint,
        access: Access,
        model: str,
        feeds: Sequence[Mapping[str, Array]],
        specs: Sequence[TensorSpec],
        *,
        batch: int,
        in_flight: int,
        cleanup: ExitStack,
    ) -> PreparedLoad:
        """Connections and requests for ``feeds``; shared memory is given back by ``cleanup``.

        Raises InputError where the server cannot see this machine's memory.
        """
        if not self.shared_memory:
            return prepare_load(
                self.protocol, access, model, feeds, specs, compressed=self.compressed
            )
        requests = [infer_request(model, feed, specs) for feed in feeds]
        sizes = sizes_of_outputs(endpoint, model, feeds, batch)
        placed = cleanup.enter_context(
            in_shared_memory(endpoint, requests, sizes, in_flight=in_flight)
        )
        return prepare_requests_of(self.protocol, access, placed, compressed=self.compressed)
