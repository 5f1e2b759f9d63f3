"""The way to a server: options of ``perf`` and ``compare``, and what they mean together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import InputError
from trimton.plugin.cli.bounds import check_within
from trimton.plugin.cli.load_options import LOAD_PANEL

if TYPE_CHECKING:
    from trimton.perf.targets.tls import Tls
    from trimton.plugin.wire import Wire

TOKEN_VARIABLE = "TRIMTON_TOKEN"
_WORKERS_MAX = 256
_SEQUENCE_LENGTH_MAX = 10_000
_PANEL = "Connection to a server"


@dataclass(frozen=True)
class ConnectionOptions:
    """Where the server is, and how requests travel to it."""

    url: Annotated[
        str | None,
        typer.Option("--url", "-u", metavar="HOST:PORT", help="A running server's HTTP address."),
    ] = None
    metrics_url: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The Prometheus metrics of the server at --url (Triton's port is 8002).",
        ),
    ] = None
    protocol: Annotated[
        str, typer.Option("--protocol", "-i", help="http or grpc.", rich_help_panel=_PANEL)
    ] = "http"
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:VALUE",
            help="A header of every request (repeatable). A bearer token is taken from the "
            f"environment variable {TOKEN_VARIABLE}.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Connect with TLS; the system's authorities are trusted.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem", help="Trust these authorities instead.", rich_help_panel=_PANEL
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pem", help="The client's certificate.", rich_help_panel=_PANEL),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Its key.", rich_help_panel=_PANEL)
    ] = None
    tls_insecure: Annotated[
        bool,
        typer.Option("--tls-insecure", help="Trust whatever answers.", rich_help_panel=_PANEL),
    ] = False

    def wire(self) -> Wire:
        """How requests travel, checked, from one process; InputError for what is wrong."""
        return self._wire(workers=1)

    def _wire(
        self,
        *,
        streaming: bool = False,
        compressed: bool = False,
        shared_memory: bool = False,
        sequence_length: int | None = None,
        workers: int | None,
    ) -> Wire:
        from trimton.perf.load.protocols import protocol_named
        from trimton.perf.targets.access import parse_headers
        from trimton.perf.targets.address import Address
        from trimton.plugin.wire import Wire

        wire = Wire(
            protocol=protocol_named(self.protocol, streaming=streaming),
            tls=self._tls(),
            headers=parse_headers(self.header or (), os.environ.get(TOKEN_VARIABLE)),
            compressed=compressed,
            shared_memory=shared_memory,
            sequence_length=sequence_length,
            workers=workers,
        )
        if self.url is None and wire.tls is not None:
            raise InputError("--tls is for a server at --url; a local one has no TLS.")
        if self.metrics_url is not None:
            if self.url is None:
                raise InputError("--metrics-url is for a server at --url; a local one is known.")
            Address.parse(self.metrics_url.removesuffix("/metrics"))
        return wire

    def _tls(self) -> Tls | None:
        from trimton.perf.targets.tls import Tls

        if self.tls_key is not None and self.tls_cert is None:
            raise InputError("--tls-key needs the certificate that it belongs to: --tls-cert.")
        if not self.tls and (self.tls_ca or self.tls_cert or self.tls_insecure):
            raise InputError("--tls-ca, --tls-cert, --tls-key and --tls-insecure need --tls.")
        if not self.tls:
            return None
        return Tls(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure)


@dataclass(frozen=True)
class PerfConnectionOptions(ConnectionOptions):
    """The same, and what ``perf`` alone can do on the way."""

    compress: Annotated[
        bool,
        typer.Option("--compress", help="Send request bodies with gzip.", rich_help_panel=_PANEL),
    ] = False
    shared_memory: Annotated[
        str,
        typer.Option(
            help="none, or system: tensors stay in this machine's memory.", rich_help_panel=_PANEL
        ),
    ] = "none"
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Streaming inference over gRPC, for decoupled models: a request ends with its "
            "last response.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = False
    sequence_length: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Send sequences of N requests, for stateful models; each request in flight "
            "belongs to a sequence of its own.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that share the load. Without it one, and more where that one turns "
            "out to be the limit.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None

    def wire(self) -> Wire:
        """How requests travel, checked; InputError for what is wrong."""
        if self.shared_memory not in ("none", "system"):
            raise InputError(f"--shared-memory {self.shared_memory}: choose none or system.")
        is_shared = self.shared_memory == "system"
        check_within("--workers", self.workers, 1, _WORKERS_MAX)
        check_within("--sequence-length", self.sequence_length, 1, _SEQUENCE_LENGTH_MAX)
        if self.compress and self.sequence_length is not None:
            raise InputError(
                "--compress is not for --sequence-length: sequences are not compressed."
            )
        if self.streaming and self.protocol.lower() != "grpc":
            raise InputError("--streaming needs gRPC: give -i grpc and, with --url, its port.")
        if self.compress and is_shared:
            raise InputError("--compress has nothing to do with --shared-memory system.")
        return self._wire(
            streaming=self.streaming,
            compressed=self.compress,
            shared_memory=is_shared,
            sequence_length=self.sequence_length,
            workers=self.workers,
        )
