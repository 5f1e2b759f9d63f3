"""TLS of a connection: whom to trust, and who the client is."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.targets.address import Address

_SHOWN_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Tls:
    """How a connection is secured; without ``ca_file`` the system's authorities are trusted.

    ``certificate_file`` and ``key_file`` (PEM) name the client where the server asks for it.
    ``insecure`` trusts whatever answers: for tests with self-signed certificates.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False

    def context(self, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """The context for connections that negotiate one of ``protocols`` (ALPN).

        Raises InputError for a file that is missing or no PEM of its kind.
        """
        context = self._trust()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file is not None:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file)
            except OSError as error:
                raise InputError(
                    f"{self.certificate_file}: is no usable client certificate with its key "
                    f"({error.strerror or error}); give PEM files of a certificate and its key."
                ) from error
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise InputError(
                f"{self.ca_file}: holds no usable certificates of authorities "
                f"({error.strerror or error}); give a PEM file."
            ) from error


def shown_certificate(address: Address, tls: Tls) -> tuple[str, str]:
    """The certificate (PEM) that the server shows, unverified, and a name that it is made for.

    For libraries that cannot leave out the verification: they may trust just this certificate.
    Raises InfrastructureError when the server shows none.
    """
    context = replace(tls, insecure=True).context()
    try:
        certificate = ssl.DER_cert_to_PEM_cert(_shown(address, context)[0])
        # Python reads the names of a certificate only once it is verified.
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=certificate)
        _, known = _shown(address, context)
    except OSError as error:
        raise InfrastructureError(
            f"the server at {address} shows no TLS certificate ({error.strerror or error}); "
            "check that it runs and speaks TLS on this port."
        ) from error
    return certificate, next(_names(known), address.host)


def _shown(address: Address, context: ssl.SSLContext) -> tuple[bytes, dict[str, Any]]:
    """The certificate of a server, in DER and (where it is verified) as read by Python."""
    with (
        socket.create_connection((address.host, address.port), _SHOWN_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b"", secured.getpeercert() or {}


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    """Names of hosts, the alternative ones first."""
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "IP Address"):
            yield name
    for part in certificate.get("subject", ()):
        for kind, name in part:
            if kind == "commonName":
                yield name
