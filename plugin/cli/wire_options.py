"""What the options of the way to a server mean together, for ``perf`` and ``compare``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trimton.core.errors import InputError
from trimton.plugin.cli.load_options import TOKEN_VARIABLE
from trimton.plugin.cli.perf_options import check_within

if TYPE_CHECKING:
    from trimton.plugin.wire import Wire

_WORKERS_MAX = 256
_SEQUENCE_LENGTH_MAX = 10_000


def wire_of(
    *,
    protocol: str,
    headers: list[str] | None,
    tls: bool,
    tls_files: Mapping[str, str | None],
    insecure: bool,
    compress: bool = False,
    shared_memory: str = "none",
    streaming: bool = False,
    sequence_length: int | None = None,
    workers: int | None = None,
) -> Wire:
    """How requests travel, checked; ``tls_files`` by the name of their field in Tls."""
    from trimton.perf.load.protocols import protocol_named
    from trimton.perf.targets.access import parse_headers
    from trimton.perf.targets.tls import Tls
    from trimton.plugin.wire import Wire

    if shared_memory not in ("none", "system"):
        raise InputError(f"--shared-memory {shared_memory}: choose none or system.")
    check_within("--workers", workers, 1, _WORKERS_MAX)
    check_within("--sequence-length", sequence_length, 1, _SEQUENCE_LENGTH_MAX)
    if compress and sequence_length is not None:
        raise InputError("--compress is not for --sequence-length: sequences are not compressed.")
    if streaming and protocol.lower() != "grpc":
        raise InputError("--streaming needs gRPC: give -i grpc and, with --url, its port.")
    if compress and shared_memory == "system":
        raise InputError("--compress has nothing to do with --shared-memory system.")
    files = {name: Path(file) for name, file in tls_files.items() if file is not None}
    if "key_file" in files and "certificate_file" not in files:
        raise InputError("--tls-key needs the certificate that it belongs to: --tls-cert.")
    if (files or insecure) and not tls:
        raise InputError("--tls-ca, --tls-cert, --tls-key and --tls-insecure need --tls.")
    return Wire(
        protocol=protocol_named(protocol, streaming=streaming),
        tls=Tls(**files, insecure=insecure) if tls else None,
        headers=parse_headers(headers or (), os.environ.get(TOKEN_VARIABLE)),
        compressed=compress,
        shared_memory=shared_memory == "system",
        sequence_length=sequence_length,
        workers=workers,
    )


def check_server_options(url: str | None, metrics_url: str | None, wire: Wire) -> None:
    """Raise InputError for options of a server at ``--url`` where there is none."""
    from trimton.perf.targets.address import Address

    if url is None and wire.tls is not None:
        raise InputError("--tls is for a server at --url; a local one has no TLS.")
    if metrics_url is None:
        return
    if url is None:
        raise InputError("--metrics-url is for a server at --url; a local one is known.")
    Address.parse(metrics_url.removesuffix("/metrics"))
