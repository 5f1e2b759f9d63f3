"""What ``perf`` does with its options: open the model, load it, tell what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version

import typer

from trimton.core.errors import EXIT_FAIL, InputError
from trimton.core.files import write_text
from trimton.perf.engines.program import Program, find_program
from trimton.perf.formats.perf_analyzer_csv import perf_analyzer_csv
from trimton.perf.formats.profile_export import write_profile_export
from trimton.perf.formats.traces import write_trace
from trimton.perf.load.feeds import Feed, resolve_batch
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.request_log import RequestLog, epoch_offset_ns
from trimton.perf.load.rounds import Level
from trimton.perf.load.slices import Slice, cut
from trimton.perf.results import LoadWindow
from trimton.plugin.analyzer import run_analyzer
from trimton.plugin.cli.connection_options import PerfConnectionOptions
from trimton.plugin.cli.feed_options import FeedOptions
from trimton.plugin.cli.load_levels import CONCURRENCY_MAX, RATE_MAX_RPS, Endless
from trimton.plugin.cli.load_options import LoadOptions
from trimton.plugin.cli.measure_options import FileOptions, MeasureOptions
from trimton.plugin.cli.output import console, print_json, progress
from trimton.plugin.cli.perf import ANALYZER_ENGINE, OWN_ENGINE
from trimton.plugin.cli.perf_output import Heading, print_test, test_json
from trimton.plugin.cli.running_options import RunningOptions
from trimton.plugin.load_test import LoadTest, Measuring, run_levels, run_peak
from trimton.plugin.server.installation import home
from trimton.plugin.subjects import Subject, open_subjects
from trimton.plugin.wire import Wire

# The schedule of a window is made before the load: eight bytes for each request.
_SCHEDULE_MAX = 20_000_000
_SLICES = 10


@dataclass(frozen=True)
class PerfRun:
    """One call of ``perf``."""

    model: str
    connection: PerfConnectionOptions
    feed: FeedOptions
    load: LoadOptions
    measure: MeasureOptions
    files: FileOptions
    running: RunningOptions
    engine: str
    json: bool

    @cached_property
    def wire(self) -> Wire:
        """How requests travel."""
        return self.connection.wire()

    def run(self) -> None:
        """Measure, write the files, and print.

        Raises InputError for options that contradict each other or the model, and typer.Exit
        where no rate keeps the objective of a search.
        """
        wire, feeding = self.wire, self.feed.feeding(self.running.seed)
        levels = self.load.levels()
        measuring = self.measure.measuring(
            seed=self.running.seed,
            runs_once=self.load.runs_once,
            percentile_is_for_limit=self.load.has_limit,
        )
        if self.load.runs_once:
            [schedule] = levels
            assert not isinstance(schedule, int), "a ramp and a trace are schedules"
            measuring = replace(measuring, window_s=schedule.duration_s(measuring.window_s))
        self._check(levels, measuring)
        self._check_workers()
        program = self._program(levels, measuring)
        needs_log = self.files.profile_export_file or self.files.save_trace or self.load.runs_once
        log = RequestLog() if needs_log else None
        with open_subjects(
            [self.model],
            url=self.connection.url,
            intra_op_threads=self.running.threads,
            wire=wire,
            metrics_url=self.connection.metrics_url,
        ) as (subject,):
            self._check_subject(subject)
            size = resolve_batch(subject.inputs, self.feed.batch)
            feeds = feeding.feeds(subject, feeding.samples(subject), size)
            check = feeding.check(subject, feeds, size)
            if check is not None and program is not None:
                raise InputError(
                    f"--engine {ANALYZER_ENGINE} does not tell which outputs were wrong; give "
                    "--no-validate."
                )
            if wire.takes_single_requests:
                # What the model refuses is wrong input, not an error rate.
                subject.infer(feeds[0])
            with progress() as shown:
                task = shown.add_task("loading", total=self._windows(levels, measuring))
                if program is not None:
                    test = run_analyzer(
                        program,
                        subject,
                        feeds,
                        size,
                        levels,
                        measuring,
                        on_round=lambda measured: shown.advance(task),
                    )
                else:
                    test = self._load(
                        subject,
                        feeds,
                        size,
                        check,
                        levels,
                        measuring,
                        log,
                        lambda: shown.advance(task),
                    )
        self._tell(test, measuring, Heading.of(subject, wire, size), log)

    def _load(
        self,
        subject: Subject,
        feeds: Sequence[Feed],
        batch: int,
        check: OutputCheck | None,
        levels: Iterable[Level],
        measuring: Measuring,
        log: RequestLog | None,
        advance: Callable[[], None],
    ) -> LoadTest:
        """With our own generator; ``advance`` is called after each window."""
        arm = subject.arm(
            feeds,
            batch,
            in_flight=self._in_flight(levels),
            on_request=log.on_request if log else None,
            check=check,
        )

        def on_window(window: LoadWindow) -> None:
            if log is not None:
                log.on_window(window)
            advance()

        objective = self.load.objective(self.measure.percentile)
        if objective is None:
            threshold = self.load.threshold(self.measure.percentile)
            return run_levels(arm, levels, measuring, threshold=threshold, on_window=on_window)
        return run_peak(
            arm,
            objective,
            measuring,
            rate_max_rps=RATE_MAX_RPS,
            precision=self.load.peak_precision / 100,
            on_trial=lambda trial: advance(),
            on_window=on_window,
        )

    def _program(self, levels: Iterable[Level], measuring: Measuring) -> Program | None:
        """The program of another engine, after what it cannot do was refused; None for our own."""
        if self.engine == OWN_ENGINE:
            return None
        if self.engine != ANALYZER_ENGINE:
            raise InputError(f"--engine {self.engine}: choose {OWN_ENGINE} or {ANALYZER_ENGINE}.")
        only_ours = {
            "a rate, a ramp, a trace or --peak": self.load.is_by_schedule,
            "a range without END": isinstance(levels, Endless),
            "--latency-threshold": self.load.has_limit,
            "--request-count": measuring.request_count is not None,
            "--warmup auto": measuring.warmup_s is None,
            "--profile-export-file": self.files.profile_export_file is not None,
            "--save-trace": self.files.save_trace is not None,
            "--streaming": self.wire.protocol.name not in ("http", "grpc"),
            "TLS, headers, compression, shared memory, sequences or workers": (
                self.wire != Wire(protocol=self.wire.protocol)
            ),
        }
        asked = [words for words, is_asked in only_ours.items() if is_asked]
        if asked:
            raise InputError(
                f"--engine {ANALYZER_ENGINE} is for a plain closed loop here, not for {asked[0]}."
            )
        return find_program(home())

    def _tell(
        self,
        test: LoadTest,
        measuring: Measuring,
        heading: Heading,
        log: RequestLog | None,
    ) -> None:
        slices: tuple[Slice, ...] = ()
        if log is not None:
            log.keep(test.windows)
            if self.load.runs_once:
                slices = cut(log.windows[0], measuring.window_s, _SLICES)
        self._write_files(test, log)
        if self.json:
            print_json(test_json(test, measuring, heading, slices))
        else:
            print_test(console(), test, measuring, heading, slices)
        if test.peak is not None and test.peak.rate_rps is None:
            raise typer.Exit(EXIT_FAIL)

    def _write_files(self, test: LoadTest, log: RequestLog | None) -> None:
        if self.files.latency_report_file is not None:
            write_text(self.files.latency_report_file, perf_analyzer_csv(test.levels))
        if self.files.profile_export_file is not None and log is not None:
            write_profile_export(
                self.files.profile_export_file,
                log.windows,
                epoch_offset_ns=epoch_offset_ns(),
                version=version("trimton"),
            )
        if self.files.save_trace is not None and log is not None and log.windows:
            write_trace(self.files.save_trace, log.windows[0].started_ns)

    def _check(self, levels: Iterable[Level], measuring: Measuring) -> None:
        if isinstance(levels, Endless):
            if not self.load.has_limit:
                raise InputError("a range with END 0 needs --latency-threshold to end it.")
            return
        for level in levels:
            if isinstance(level, int):
                continue
            requests = level.rate_rps * level.duration_s(measuring.window_s)
            if measuring.request_count is None and requests > _SCHEDULE_MAX:
                raise InputError(
                    f"{level.rate_rps:g} requests/s make {requests:.3g} requests in one window "
                    f"(at most {_SCHEDULE_MAX:.0e}); measure for a shorter time."
                )

    def _check_workers(self) -> None:
        recorded = {
            "--profile-export-file": self.files.profile_export_file,
            "--save-trace": self.files.save_trace,
            "a ramp or a trace": self.load.runs_once,
        }
        asked = [words for words, is_asked in recorded.items() if is_asked]
        if asked and (self.wire.workers or 1) > 1:
            raise InputError(f"--workers is not for {asked[0]}, which is recorded in one process.")

    def _check_subject(self, subject: Subject) -> None:
        if subject.server is None and self.wire.is_special:
            raise InputError(
                f"{self.model} runs in this process; --protocol, --compress, --shared-memory, "
                "--streaming, --sequence-length and --workers are for models on a server."
            )

    def _in_flight(self, levels: Iterable[Level]) -> int:
        if self.load.is_by_schedule:
            return self.load.max_connections
        if isinstance(levels, Endless):
            return CONCURRENCY_MAX
        return max(level for level in levels if isinstance(level, int))

    def _windows(self, levels: Iterable[Level], measuring: Measuring) -> int | None:
        """How many windows there will be, where that is known."""
        unknown = measuring.rule or self.load.has_limit
        return None if unknown else measuring.rounds * len(list(levels))
