"""A load carried by Ray actors, on as many machines as the cluster has.

For the rates that one machine cannot send. The split and the merge are those of processes
(trimton.perf.load.shares); only the start differs: machines have no monotonic clock in common, so
every actor begins when it is told to, within a message's time of the others. Each measures its
own window exactly, so that costs nothing.

Needs the extra ``[ray]``, and Trimton in the same version on every machine of the cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from trimton.core.errors import InfrastructureError, InputError, TrimtonError
from trimton.perf.load.arms import Load
from trimton.perf.load.shares import LoadSource, run_share
from trimton.perf.load.span import Enough, Progress, never
from trimton.perf.load.tally import Tally

_WATCH_INTERVAL_S = 0.2
_PLACEMENT_TIMEOUT_S = 60.0


class RayWorkers:
    """``size`` actors spread over the cluster at ``address``; see shares.Crew.

    Without an ``address`` the cluster is the one of the environment (``RAY_ADDRESS``), else one
    on this machine alone. Raises InputError without Ray, and InfrastructureError where the
    cluster does not answer or has too few processors free.
    """

    def __init__(self, size: int, address: str | None = None) -> None:
        self.size = size
        self._loads = 0
        self._ray = _import_ray()
        self._owns_connection = not self._ray.is_initialized()
        if self._owns_connection:
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InfrastructureError(
                    f"the Ray cluster at {address or 'the default address'} cannot be reached "
                    f"({_first_line(error)}); check that it runs and that its version is ours."
                ) from error
        actor = self._ray.remote(LoadActor).options(
            # More threads: one to say "ready", one to hear "start" and "stop", one for progress.
            max_concurrency=4,
            num_cpus=1,
            scheduling_strategy="SPREAD",
        )
        self._actors = [actor.remote(worker, size) for worker in range(size)]
        try:
            self._wait_for_placement()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The cluster node of each actor."""
        return tuple(self._ray.get([actor.node.remote() for actor in self._actors]))

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
        self._loads += 1
        number, shared_source = self._loads, self._ray.put(source)
        work = [actor.carry.remote(number, shared_source, load) for actor in self._actors]
        try:
            ready = [actor.wait_until_ready.remote(number) for actor in self._actors]
            self._finish(ready, is_alive)
            finished, _ = self._ray.wait(work, num_returns=self.size, timeout=0)
            self._raise_first(self._ray.get(finished))
            before_window()
            self._ray.get([actor.start.remote(number) for actor in self._actors])

            def stop_when_enough() -> None:
                told = self._ray.get([actor.progress.remote() for actor in self._actors])
                if enough(Progress.together(told)):
                    for actor in self._actors:
                        actor.stop.remote(number)

            watch = (lambda: None) if enough is never else stop_when_enough
            return self._raise_first(self._finish(work, is_alive, watch))
        except self._ray.exceptions.RayActorError as error:
            raise InfrastructureError(
                "an actor of the load generator died, or its machine left the Ray cluster; look "
                "into the cluster's log."
            ) from error
        finally:
            # Whoever still waits for a start that will not come must not wait for ever.
            for actor in self._actors:
                actor.start.remote(number)

    def close(self) -> None:
        """End the actors, and the connection to the cluster if it was made here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._owns_connection:
            self._ray.shutdown()

    def _wait_for_placement(self) -> None:
        try:
            self._ray.get(
                [actor.node.remote() for actor in self._actors], timeout=_PLACEMENT_TIMEOUT_S
            )
        except self._ray.exceptions.GetTimeoutError as error:
            free = int(self._ray.available_resources().get("CPU", 0))
            raise InfrastructureError(
                f"the Ray cluster found no place for {self.size} workers within "
                f"{_PLACEMENT_TIMEOUT_S:g} s (processors still free: {free}); ask for fewer "
                "workers or add machines."
            ) from error

    def _finish(
        self,
        references: Sequence[Any],
        is_alive: Callable[[], bool],
        watch: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        waiting = list(references)
        while waiting:
            _, waiting = self._ray.wait(
                waiting, num_returns=len(waiting), timeout=_WATCH_INTERVAL_S
            )
            watch()
            if not is_alive():
                raise InfrastructureError(
                    "the local server ended during the load; look into its log."
                )
        return list(self._ray.get(list(references)))

    @staticmethod
    def _raise_first(outcomes: Sequence[Tally | TrimtonError]) -> tuple[Tally, ...]:
        tallies = []
        for outcome in outcomes:
            if isinstance(outcome, TrimtonError):
                raise outcome
            tallies.append(outcome)
        return tuple(tallies)


class LoadActor:
    """One worker; its methods run in threads beside each other.

    Each load has a number, so that a late word about one is not taken for another.
    """

    def __init__(self, worker: int, workers: int) -> None:
        self._worker = worker
        self._workers = workers
        self._changed = threading.Condition()
        self._ready = 0
        self._started = 0
        self._stopped = 0
        self._progress = Progress(0, 0, 0, 0)

    def node(self) -> str:
        """The cluster node that it runs on."""
        return str(_import_ray().get_runtime_context().get_node_id())

    def carry(self, number: int, source: LoadSource, load: Load) -> Tally | TrimtonError:
        """Carry a share of ``load``; its error is an outcome like another."""

        def wait_for_the_others() -> None:
            with self._changed:
                self._ready = number
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._started >= number)

        def tell_and_hear(progress: Progress) -> bool:
            self._progress = progress
            return self._stopped >= number

        self._progress = Progress(0, 0, 0, 0)
        try:
            return run_share(
                source, load, self._worker, self._workers, wait_for_the_others, tell_and_hear
            )
        except TrimtonError as error:
            return error
        finally:
            with self._changed:
                self._ready = number
                self._changed.notify_all()

    def wait_until_ready(self, number: int) -> None:
        """Returns when the warm-up is over, or has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready >= number)

    def progress(self) -> Progress:
        """How far the load has come."""
        return self._progress

    def stop(self, number: int) -> None:
        """Let an open loop end early."""
        self._stopped = max(self._stopped, number)

    def start(self, number: int) -> None:
        """Let the window begin."""
        with self._changed:
            self._started = max(self._started, number)
            self._changed.notify_all()


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError(
            "workers on a Ray cluster need Ray; install it with: pip install 'trimton[ray]'."
        ) from error
    return ray


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
