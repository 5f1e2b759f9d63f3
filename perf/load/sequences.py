"""Sequences: requests that belong together and must follow each other on the server.

A request of a sequence is encoded once, with a hole where the sequence's number stands. Each
connection carries one sequence at a time, step by step, so the order is kept; numbers never
repeat, and workers draw them from ranges of their own.

Source: Triton's sequence extension of KServe v2 (``sequence_id``, ``sequence_start``,
``sequence_end``).
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns

from trimton.core.errors import InputError
from trimton.perf.load.connection import Connection, Connector, OnAnswer, OnFailure
from trimton.perf.load.infer_request import InferRequest
from trimton.perf.load.wrapped_connection import WrappedConnection

# In this range all numbers are equally long: ten digits in JSON, five bytes in protobuf.
FIRST_ID = 10**9
END_ID = 10**10
# Two numbers that differ in the first digit and in the first byte.
_PROBE_IDS = (1_234_567_891, 9_876_543_210)
# A sequence that paused for longer is begun anew: the server may have dropped it (its default
# for max_sequence_idle_microseconds is one second).
_LONGEST_PAUSE_NS = 500_000_000

# The requests argument of a load whose connections know themselves what comes next.
IN_SEQUENCE = (b"",)


@dataclass(frozen=True)
class Step:
    """An encoded request of a sequence, around the place of the sequence's number."""

    before: bytes
    after: bytes
    encode_id: Callable[[int], bytes]

    def numbered(self, sequence_id: int) -> bytes:
        """The request as a part of the sequence ``sequence_id``."""
        return self.before + self.encode_id(sequence_id) + self.after


def encode_sequence(
    requests: Sequence[InferRequest], encode: Callable[[InferRequest], bytes]
) -> tuple[Step, ...]:
    """The steps of one sequence; ``encode`` is a protocol's.

    Raises InputError where the number cannot be found in what ``encode`` makes (compression).
    """
    last = len(requests) - 1
    return tuple(
        _step(request, encode, starts=index == 0, ends=index == last)
        for index, request in enumerate(requests)
    )


def cut_sequences(
    requests: Sequence[InferRequest], length: int
) -> tuple[tuple[InferRequest, ...], ...]:
    """Sequences of ``length`` that use all ``requests`` in turn, from the start again at the end.

    Raises InputError for a length below 1.
    """
    if length < 1:
        raise InputError(f"the length of a sequence must be at least 1, not {length}.")
    count = -(-len(requests) // length)
    endless = itertools.cycle(requests)
    return tuple(tuple(itertools.islice(endless, length)) for _ in range(count))


def sequence_ids(worker: int = 0, workers: int = 1) -> Iterator[int]:
    """Numbers for the sequences of one worker; no two workers draw the same.

    They begin anywhere in the worker's range, so that a second load does not continue sequences
    which an interrupted one left open on the server.
    """
    size = (END_ID - FIRST_ID) // workers
    first = FIRST_ID + worker * size
    for index in itertools.count(secrets.randbelow(size)):
        yield first + index % size


def largest_step(sequences: Iterable[Sequence[Step]]) -> int:
    """The size of the largest request in ``sequences``, in bytes."""
    return max(len(step.numbered(FIRST_ID)) for sequence in sequences for step in sequence)


class SequenceConnector:
    """Opens connections of ``inner`` that each carry ``sequences``, one after the other.

    A sequence that is between two steps when its connection is closed goes on with the next
    connection, so that no slot of the server stays taken between warm-up and window.
    """

    def __init__(
        self, inner: Connector, sequences: Iterable[Sequence[Step]], ids: Iterator[int]
    ) -> None:
        self._inner = inner
        self._sequences = itertools.cycle(tuple(sequences))
        self._ids = ids
        self._paused: list[Progress] = []

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""
        return self._inner.where

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> SequenceConnection:
        """A new connection; OSError where the server does not accept it."""
        connection = SequenceConnection(self, on_answer, on_failure)
        connection.inner = await self._inner.open(connection.answered, connection.failed)
        return connection

    def begin(self) -> Progress:
        """The next sequence to work on: a paused one, or a new one."""
        oldest_ns = monotonic_ns() - _LONGEST_PAUSE_NS
        while self._paused:
            progress = self._paused.pop()
            if progress.paused_ns >= oldest_ns:
                return progress
        return Progress(next(self._sequences), next(self._ids))

    def pause(self, progress: Progress) -> None:
        """``progress`` goes on later, on another connection."""
        progress.paused_ns = monotonic_ns()
        self._paused.append(progress)


class Progress:
    """How far one sequence has come."""

    __slots__ = ("paused_ns", "position", "sequence_id", "steps")

    def __init__(self, steps: Sequence[Step], sequence_id: int) -> None:
        self.steps = steps
        self.sequence_id = sequence_id
        self.position = 0
        self.paused_ns = 0


class SequenceConnection(WrappedConnection[Connection]):
    """One connection, one sequence at a time."""

    __slots__ = ("_connector", "_progress")

    def __init__(
        self, connector: SequenceConnector, on_answer: OnAnswer, on_failure: OnFailure
    ) -> None:
        super().__init__(on_answer, on_failure)
        self._connector = connector
        self._progress: Progress | None = None

    def send(self, request: bytes) -> None:
        """Send the next step of the sequence; what a mode deals out in turn plays no part."""
        if self._progress is None:
            self._progress = self._connector.begin()
        progress = self._progress
        self.inner.send(progress.steps[progress.position].numbered(progress.sequence_id))

    def close(self) -> None:
        """Drop the connection without a report."""
        if self._progress is not None and not self.inner.in_flight:
            self._connector.pause(self._progress)
        self._progress = None
        self.inner.close()

    def answered(self, inner: Connection, finished_ns: int) -> None:
        """A step succeeded."""
        progress = self._progress
        assert progress is not None, "an answer follows a step"
        progress.position += 1
        if progress.position == len(progress.steps):
            self._progress = None
        self._on_answer(self, finished_ns)

    def failed(self, inner: Connection, kind: str, text: str) -> None:
        """A step failed: nobody knows what the server still holds of the sequence."""
        self._progress = None
        self._on_failure(self, kind, text)


def _step(
    request: InferRequest, encode: Callable[[InferRequest], bytes], *, starts: bool, ends: bool
) -> Step:
    one, other = (
        encode(
            replace(
                request,
                parameters={
                    **request.parameters,
                    "sequence_id": probe,
                    "sequence_start": starts,
                    "sequence_end": ends,
                },
            )
        )
        for probe in _PROBE_IDS
    )
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    for encode_id in (_decimal, _varint):
        shown, shown_other = (encode_id(probe) for probe in _PROBE_IDS)
        end = start + len(shown)
        if one[start:end] == shown and other == one[:start] + shown_other + one[end:]:
            return Step(one[:start], one[end:], encode_id)
    raise InputError("requests of a sequence cannot be compressed; leave the compression out.")


def _decimal(number: int) -> bytes:
    return b"%d" % number


def _varint(number: int) -> bytes:
    """The base-128 form of protobuf."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
