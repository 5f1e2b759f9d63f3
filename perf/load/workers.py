"""A load carried by several processes of this machine.

One process of Python uses one core at most. Where that limits the load, more of them share it:
they begin at one instant of the monotonic clock, which all processes of a machine have in
common, and their counts are merged.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic_ns
from typing import Any, Self

from trimton.core.errors import InfrastructureError, TrimtonError
from trimton.perf.load.arms import Load
from trimton.perf.load.shares import LoadSource, run_share
from trimton.perf.load.span import Enough, Progress, never
from trimton.perf.load.tally import Tally

# Enough for every worker to receive the word and wait for the instant.
_LEAD_NS = 20_000_000
_WATCH_INTERVAL_S = 0.2
_END_TIMEOUT_S = 2.0
_READY = "ready"
_ENOUGH = "enough"


class WorkerProcesses:
    """``size`` processes, started at the first load and kept until ``close``.

    See trimton.perf.load.shares.Crew.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        source: LoadSource,
        load: Load,
        *,
        before_window: Callable[[], None] = lambda: None,
        is_alive: Callable[[], bool] = lambda: True,
        enough: Enough = never,
    ) -> tuple[Tally, ...]:
        """See trimton.perf.load.shares.Crew."""
        try:
            return self._run(source, load, before_window, is_alive, enough)
        except BaseException as error:
            # Whoever waits for a word that will not come must not wait for ever.
            self.close()
            if isinstance(error, EOFError | ConnectionError):
                raise InfrastructureError(
                    "a process of the load generator ended in the middle of its work; is there "
                    "enough memory?"
                ) from error
            raise

    def close(self) -> None:
        """End the processes; a later load starts new ones."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_END_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def _run(
        self,
        source: LoadSource,
        load: Load,
        before_window: Callable[[], None],
        is_alive: Callable[[], bool],
        enough: Enough,
    ) -> tuple[Tally, ...]:
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((source, load, enough is not never))
        self._collect(is_alive)
        before_window()
        start_ns = monotonic_ns() + _LEAD_NS
        for pipe in self._pipes:
            pipe.send(start_ns)
        return tuple(self._collect(is_alive, enough))

    def _start(self) -> None:
        # Fresh interpreters: a fork would copy the threads' locks of the libraries in use.
        context = multiprocessing.get_context("spawn")
        for worker in range(self.size):
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(there, worker, self.size), name=f"load-{worker}", daemon=True
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def _collect(self, is_alive: Callable[[], bool], enough: Enough = never) -> list[Any]:
        """One message of each worker, in their order; raises what one of them raised.

        Workers tell their progress on the way, and hear when all have come far enough.
        """
        messages: dict[Connection, Any] = {}
        progress: dict[Connection, Progress] = {}
        is_stopped = False
        while len(messages) < self.size:
            waiting: Sequence[Connection] = [p for p in self._pipes if p not in messages]
            for pipe in wait(waiting, _WATCH_INTERVAL_S):
                assert isinstance(pipe, Connection), "only pipes were waited for"
                message = pipe.recv()
                if isinstance(message, TrimtonError):
                    raise message
                if isinstance(message, Progress):
                    progress[pipe] = message
                else:
                    messages[pipe] = message
            if progress and not is_stopped and enough(Progress.together(progress.values())):
                is_stopped = True
                for pipe in self._pipes:
                    pipe.send(_ENOUGH)
            if not is_alive():
                raise InfrastructureError(
                    "the local server ended during the load; look into its log."
                )
        return [messages[pipe] for pipe in self._pipes]


def _work(pipe: Connection, worker: int, workers: int) -> None:
    """A worker's life: loads come through ``pipe`` until it is closed."""
    # Ctrl-C is for the parent, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_the_others() -> None:
        pipe.send(_READY)
        start_ns = pipe.recv()
        time.sleep(max(0, start_ns - monotonic_ns()) / 1e9)

    def tell_and_hear(progress: Progress) -> bool:
        pipe.send(progress)
        return pipe.poll() and pipe.recv() == _ENOUGH

    while True:
        try:
            work = pipe.recv()
            if work == _ENOUGH:  # said when the load had just ended
                continue
            source, load, is_watched = work
            try:
                answer: Tally | TrimtonError = run_share(
                    source,
                    load,
                    worker,
                    workers,
                    wait_for_the_others,
                    tell_and_hear if is_watched else never,
                )
            except TrimtonError as error:
                answer = error
            pipe.send(answer)
        except (EOFError, ConnectionError):
            return
