"""Closed loop without a server: N threads, each calls the model again when it returns."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic_ns

from trimton.core.errors import InputError
from trimton.perf.load.arms import Load, window_record
from trimton.perf.load.output_check import WRONG_OUTPUT, OutputCheck
from trimton.perf.load.span import Span
from trimton.perf.load.tally import OnRequest
from trimton.perf.load.window import Window
from trimton.perf.results import LoadWindow
from trimton.perf.targets.in_process import InProcessModel
from trimton.perf.targets.tensors import Array

REFUSED_BY_MODEL = "refused by the model"


@dataclass(frozen=True)
class InProcessArm:
    """A model in this process; ``feeds`` are the inputs of the requests, ``batch`` samples in each.

    ``check`` expects outputs of ``feeds``; what it costs is the client's.
    Client CPU is what the threads use outside the inference, CPU per inference the rest of this
    process.
    """

    variant: str
    model: InProcessModel
    feeds: Sequence[Mapping[str, Array]]
    batch: int = 1
    on_request: OnRequest | None = None
    check: OutputCheck | None = None

    def measure(self, load: Load) -> LoadWindow:
        """See trimton.perf.load.arms.Arm.

        Raises InputError for a schedule: without a server there is no one to send to.
        """
        if load.arrivals is not None:
            raise InputError(
                f"{self.model.path}: a model in this process is loaded by concurrency; for a "
                "request rate give a model folder, or a served model with --url."
            )
        if load.warmup_s > 0:
            self._run(load.concurrency, Window(int(load.warmup_s * 1e9), load.concurrency))
        before_ns = time.process_time_ns()
        if load.request_count is None:
            tally: Window | Span = Window(
                int(load.window_s * 1e9), load.concurrency, on_request=self.on_request
            )
        else:
            tally = Span(load.request_count, on_request=self.on_request)
            tally.open(monotonic_ns())
        window, client_cpu_ns = self._run(load.concurrency, tally, load.request_count)
        model_cpu_ns = time.process_time_ns() - before_ns - client_cpu_ns
        answers = max(window.all_answers, 1)
        return window_record(
            window,
            self,
            load,
            where=str(self.model.path),
            client_cpu_us_per_request=client_cpu_ns / answers / 1000,
            cpu_ms_per_inference=model_cpu_ns / answers / self.batch / 1e6,
        )

    def _run(
        self, concurrency: int, window: Window | Span, count: int | None = None
    ) -> tuple[Window | Span, int]:
        """Load until ``window`` is closed or for ``count`` requests.

        Returns ``window``, and the CPU nanoseconds that the threads used outside the model.
        """
        lock = threading.Lock()
        feeds = itertools.islice(itertools.cycle(enumerate(self.feeds)), count)

        def call_until_closed() -> int:
            model_cpu_ns = 0
            while not window.is_closed:
                with lock:
                    following = next(feeds, None)
                if following is None:
                    break
                number, feed = following
                cpu_ns, started_ns = time.thread_time_ns(), monotonic_ns()
                outputs: dict[str, Array] | None = None
                failure = None
                try:
                    outputs = self.model.infer(feed)
                except InputError as error:
                    failure = REFUSED_BY_MODEL, str(error)
                finished_ns = monotonic_ns()
                model_cpu_ns += time.thread_time_ns() - cpu_ns
                if self.check is not None and outputs is not None:
                    mismatch = self.check.mismatch(number, outputs)
                    failure = None if mismatch is None else (WRONG_OUTPUT, mismatch)
                with lock:
                    if failure is None:
                        window.answered(started_ns, finished_ns)
                    else:
                        window.failed(finished_ns, *failure)
            return time.thread_time_ns() - model_cpu_ns

        with ThreadPoolExecutor(concurrency) as pool:
            senders = [pool.submit(call_until_closed) for _ in range(concurrency)]
            try:
                return window, sum(sender.result() for sender in senders)
            finally:
                window.close()
