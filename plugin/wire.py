"""How requests travel to a server: protocol, security, headers, compression, shared memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from trimton.core.errors import InputError
from trimton.perf.load.infer_request import InferRequest, infer_request
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.protocols import PROTOCOLS, WireProtocol
from trimton.perf.load.requests import within_memory
from trimton.perf.load.sequences import cut_sequences, encode_sequence
from trimton.perf.load.shared_memory import in_shared_memory, sizes_of_outputs
from trimton.perf.load.shares import LoadSource
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec
from trimton.perf.targets.tls import Tls


@dataclass(frozen=True)
class Wire:
    """``shared_memory`` leaves tensors in the memory of this machine (Triton's extension).

    ``sequence_length`` sends sequences of so many requests, for stateful models. ``workers`` is
    how many processes share a load; None for one, and more where it is the limit itself.
    """

    protocol: WireProtocol = PROTOCOLS["http"]
    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    compressed: bool = False
    shared_memory: bool = False
    sequence_length: int | None = None
    workers: int | None = None

    @property
    def is_special(self) -> bool:
        """Whether it asks for anything that only a server has."""
        return self != Wire(tls=self.tls, headers=self.headers)

    @property
    def takes_single_requests(self) -> bool:
        """Whether a request can be tried alone; not so within sequences and streams."""
        return self.sequence_length is None and self.protocol.name in ("http", "grpc")

    def access(self, url: str) -> Access:
        """How to reach the server at ``url``; InputError where that is no address."""
        protocol = self.protocol
        address = Address.parse(url, protocol.default_port, protocol.port_of)
        return Access(address, self.tls, self.headers)

    def source(
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
        check: OutputCheck | None = None,
    ) -> LoadSource:
        """The encoded requests for ``feeds``; shared memory is given back by ``cleanup``.

        ``check`` expects outputs of ``feeds``. Raises InputError where answers do not carry these
        one by one, and where the server cannot see this machine's memory.
        """
        if check is not None and (self.shared_memory or not self.takes_single_requests):
            raise InputError(
                "outputs are compared with validation_data in plain requests over HTTP or gRPC "
                "only; with --shared-memory, --sequence-length or --streaming give --no-validate."
            )
        requests: Sequence[InferRequest] = [infer_request(model, feed, specs) for feed in feeds]
        if self.shared_memory:
            sizes = sizes_of_outputs(endpoint, model, feeds, batch)
            requests = cleanup.enter_context(
                in_shared_memory(endpoint, requests, sizes, in_flight=in_flight)
            )

        def encode(request: InferRequest) -> bytes:
            return self.protocol.encode(request, access, self.compressed)

        source = LoadSource(
            self.protocol.name,
            access,
            check=check,
            compressed=self.compressed,
            connections_max=max(in_flight, 1),
        )
        if self.sequence_length is None:
            return replace(source, requests=within_memory(map(encode, requests)))
        sequences = cut_sequences(requests, self.sequence_length)
        return replace(source, sequences=tuple(encode_sequence(s, encode) for s in sequences))
