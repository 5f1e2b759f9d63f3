"""TLS of a connection: whom to trust, and who the client is."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InputError


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
