"""One load split over several workers: what each does, and how their counts become one.

In a closed loop the requests in flight are dealt out, in an open loop the instants of the
schedule. Every worker warms up, waits for the others, and measures; the counts are added. Who the
workers are (processes, machines) is no matter here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trimton.core.errors import InputError
from trimton.perf.load.arms import Load, schedules
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.connection import Connector
from trimton.perf.load.open_loop import CONNECTIONS_MAX, run_open_loop
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.patience import Patience
from trimton.perf.load.protocols import PROTOCOLS, PreparedLoad, response_times_of
from trimton.perf.load.response_times import ResponseTimes
from trimton.perf.load.sequences import (
    IN_SEQUENCE,
    SequenceConnector,
    Step,
    largest_step,
    sequence_ids,
)
from trimton.perf.load.span import Enough, Span, never
from trimton.perf.load.tally import Tally
from trimton.perf.targets.access import Access


@dataclass(frozen=True)
class LoadSource:
    """All that a worker needs to make a load of its own; travels between processes.

    ``requests`` are encoded for ``protocol``; where ``sequences`` are given they are sent
    instead; ``check`` expects outputs of ``requests``. ``connections_max`` is for open loops, over
    all workers.
    """

    protocol: str
    access: Access
    requests: tuple[bytes, ...] = ()
    sequences: tuple[tuple[Step, ...], ...] = ()
    check: OutputCheck | None = None
    compressed: bool = False
    connections_max: int = CONNECTIONS_MAX
    request_timeout_s: float = Patience.request_timeout_s
    server_gone_s: float = Patience.server_gone_s

    def prepare(self, worker: int = 0, workers: int = 1) -> PreparedLoad:
        """Connections and requests of one worker; no two begin with the same request."""
        largest = largest_step(self.sequences) if self.sequences else max(map(len, self.requests))
        connector = self._connector(largest)
        times = response_times_of(connector)
        if self.sequences:
            in_order = SequenceConnector(connector, self.sequences, sequence_ids(worker, workers))
            return PreparedLoad(in_order, IN_SEQUENCE, times)
        first = worker * len(self.requests) // workers
        return PreparedLoad(connector, self.requests[first:] + self.requests[:first], times)

    def _connector(self, largest_bytes: int) -> Connector:
        protocol = PROTOCOLS[self.protocol]
        wire = self.access, self.compressed, largest_bytes
        if self.check is None:
            return protocol.connector(*wire)
        return protocol.checked_connector(*wire, self.requests, self.check)


class Crew(Protocol):
    """``size`` workers that share a load. Ends with ``close``."""

    @property
    def size(self) -> int: ...

    def run(
        self,
        source: LoadSource,
        load: Load,
        *,
        before_window: Callable[[], None] = lambda: None,
        is_alive: Callable[[], bool] = lambda: True,
        enough: Enough = never,
    ) -> tuple[Tally, ...]:
        """What each worker counted.

        ``before_window`` runs when all have warmed up and none has a request in flight;
        ``is_alive`` says whether a local server still runs; ``enough`` is told how far all have
        come together, some times a second, and may end an open loop early. Raises what a worker
        raised, and InfrastructureError when a worker or the server is gone.
        """

    def close(self) -> None: ...


def share_of(load: Load, worker: int, workers: int) -> Load:
    """The part of a closed ``load`` that ``worker`` of ``workers`` carries.

    An open load stays whole: its instants are dealt out when they are known.
    Raises InputError for more workers than there are requests.
    """
    if load.arrivals is not None:
        return load
    count = load.request_count
    if load.concurrency < workers:
        raise InputError(
            f"{workers} workers need at least {workers} requests in flight, "
            f"but the concurrency is {load.concurrency}."
        )
    if count is not None and count < workers:
        raise InputError(f"{workers} workers need at least {workers} requests, not {count}.")
    return replace(
        load,
        concurrency=_part(load.concurrency, worker, workers),
        request_count=None if count is None else _part(count, worker, workers),
    )


def run_share(
    source: LoadSource,
    load: Load,
    worker: int,
    workers: int,
    at_start: Callable[[], None],
    enough: Enough = never,
) -> Tally:
    """Carry the share of ``worker``: blocks in ``at_start`` until all may begin.

    ``enough`` may end the share of an open loop early.
    """
    prepared = source.prepare(worker, workers)
    times = prepared.response_times

    def begin() -> None:
        at_start()
        if times is not None:
            times.reset()

    tally = _carry(prepared, source, load, worker, workers, begin, enough)
    tally.response_times = times
    return tally


def _carry(
    prepared: PreparedLoad,
    source: LoadSource,
    load: Load,
    worker: int,
    workers: int,
    at_start: Callable[[], None],
    enough: Enough,
) -> Tally:
    patience = Patience(source.request_timeout_s, source.server_gone_s)
    share = share_of(load, worker, workers)
    if share.arrivals is None:
        return run_closed_loop(
            prepared.connector,
            prepared.requests,
            share.concurrency,
            window_s=share.window_s,
            warmup_s=share.warmup_s,
            request_count=share.request_count,
            patience=patience,
            before_window=at_start,
        )
    instants_ns, warmup_ns = schedules(share)
    mine = instants_ns[worker::workers]
    if len(mine) == 0:
        at_start()
        return Span(0)
    return run_open_loop(
        prepared.connector,
        prepared.requests,
        mine,
        warmup_ns=warmup_ns[worker::workers],
        connections_max=max(1, source.connections_max // workers),
        patience=patience,
        before_window=at_start,
        enough=enough,
        window_ns=load.window_ns,
        limit_ns=load.limit_ns,
    )


def merge_tallies(parts: Sequence[Tally]) -> Tally:
    """The counts of all workers as one.

    A closed loop's windows end at slightly different instants, so the merged one lasts as long
    as gives the sum of their rates; spans last from the first start to the last end.
    """
    spans = [part for part in parts if isinstance(part, Span)]
    if spans:
        total: Tally = _merged_spans(spans)
    else:
        total = Tally()
        total.opened_ns = min(part.opened_ns for part in parts)
    for part in parts:
        total.latencies.add(part.latencies)
        total.all_answers += part.all_answers
        total.errors += part.errors
        total.cpu_ns += part.cpu_ns
        total.error_example = total.error_example or part.error_example
        if part.response_times is not None:
            total.response_times = total.response_times or ResponseTimes()
            total.response_times.add(part.response_times)
    total.errors = Counter(dict(total.errors.most_common()))
    total.closed_ns = (
        max(span.closed_ns for span in spans)
        if spans
        else total.opened_ns + _common_duration_ns(parts)
    )
    return total


def _merged_spans(spans: Iterable[Span]) -> Span:
    total = Span(0)
    used = [span for span in spans if span.outcomes]
    total.opened_ns = min(span.opened_ns for span in used)
    for span in used:
        total.service.add(span.service)
        total.lateness.add(span.lateness)
        total.late_sends += span.late_sends
        total.client_late += span.client_late
        total.connections += span.connections
        total.in_window += span.in_window
        total.over_limit += span.over_limit
    return total


def _common_duration_ns(parts: Sequence[Tally]) -> int:
    rate = sum(p.requests / (p.closed_ns - p.opened_ns) for p in parts if p.requests)
    if not rate:
        return max(part.closed_ns - part.opened_ns for part in parts)
    return round(sum(part.requests for part in parts) / rate)


def _part(whole: int, worker: int, workers: int) -> int:
    return whole // workers + (worker < whole % workers)
