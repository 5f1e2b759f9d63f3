"""Connections whose answers are looked into: a wrong output is a failure like any other.

The clock of a request has stopped when its answer is checked; what a check costs is in the
client's CPU time, and delays the next request on that connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from trimton.core.errors import InfrastructureError
from trimton.perf.load.connection import MALFORMED, Connection, OnAnswer, OnFailure
from trimton.perf.load.output_check import WRONG_OUTPUT, OutputCheck
from trimton.perf.load.wrapped_connection import WrappedConnection
from trimton.perf.targets.tensors import Array

# Turns the answer as it came over the wire into outputs; InfrastructureError where it cannot.
ReadOutputs = Callable[[bytes], Mapping[str, Array]]


class KeepingConnection(Connection, Protocol):
    """A connection that still knows its last answer when it reports it."""

    @property
    def answer(self) -> bytes: ...


class KeepingConnector(Protocol):
    """Opens such connections."""

    @property
    def where(self) -> str: ...

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> KeepingConnection: ...


class CheckedConnector:
    """Opens connections of ``inner`` whose answers must pass ``check``.

    ``requests`` are those that will be sent, in the order of the check's expectations; ``read``
    turns their answers into outputs.
    """

    def __init__(
        self,
        inner: KeepingConnector,
        requests: Sequence[bytes],
        check: OutputCheck,
        read: ReadOutputs,
    ) -> None:
        self._inner = inner
        self._numbers = {request: number for number, request in enumerate(requests)}
        self._check = check
        self._read = read

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""
        return self._inner.where

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> CheckedConnection:
        """A new connection; OSError where the server does not accept it."""
        connection = CheckedConnection(self, on_answer, on_failure)
        connection.inner = await self._inner.open(connection.answered, connection.failed)
        return connection

    def failure(self, request: bytes, answer: bytes) -> tuple[str, str] | None:
        """Kind and text of what is wrong with ``answer``; None if nothing is."""
        try:
            outputs = self._read(answer)
        except InfrastructureError as error:
            return MALFORMED, str(error)
        mismatch = self._check.mismatch(self._numbers[request], outputs)
        return None if mismatch is None else (WRONG_OUTPUT, mismatch)


class CheckedConnection(WrappedConnection[KeepingConnection]):
    """One connection; it remembers what it asked."""

    __slots__ = ("_connector", "_request")

    def __init__(
        self, connector: CheckedConnector, on_answer: OnAnswer, on_failure: OnFailure
    ) -> None:
        super().__init__(on_answer, on_failure)
        self._connector = connector
        self._request = b""

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock."""
        self._request = request
        self.inner.send(request)

    def answered(self, inner: Connection, finished_ns: int) -> None:
        """The server answered; whether it answered well is seen here."""
        failure = self._connector.failure(self._request, self.inner.answer)
        if failure is None:
            self._on_answer(self, finished_ns)
        else:
            self._on_failure(self, *failure)
