"""What ``compare`` does with its options: open the models, load them side by side, tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.perf.load.feeds import resolve_batch
from trimton.perf.load.open_loop import CONNECTIONS_MAX
from trimton.perf.load.rounds import Level, measure_rounds
from trimton.perf.quality import measure_quality
from trimton.perf.results import LoadWindow, QualitySummary
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.stats.metrics import METRICS
from trimton.perf.stats.sequential import (
    Comparison,
    Questions,
    measure_rounds_fixed,
    measure_until_clear,
)
from trimton.plugin.cli.compare import ASKED, ASKED_BY_SCHEDULE, ROUNDS_MAX
from trimton.plugin.cli.compare_output import comparison_json, print_comparison
from trimton.plugin.cli.output import print_json, progress
from trimton.plugin.cli.perf_options import check_within
from trimton.plugin.cli.wire_options import check_server_options
from trimton.plugin.feeding import Feeding
from trimton.plugin.samples import Samples
from trimton.plugin.subjects import Subject, answers_of, check_same_inputs, open_subjects
from trimton.plugin.wire import Wire


@dataclass(frozen=True)
class Stopping:
    """When to stop: exactly ``rounds``; or once ``metrics`` are answered, within the limits."""

    metrics: tuple[str, ...]
    rounds: int | None
    max_rounds: int | None
    budget_s: float | None

    def check(self) -> None:
        """Raise InputError for the option that is wrong."""
        if self.rounds is not None and (self.max_rounds or self.budget_s or self.metrics):
            raise InputError(
                "--rounds fixes how much is measured; leave out --max-rounds, --budget and "
                "--metric."
            )
        for option, rounds in {"--rounds": self.rounds, "--max-rounds": self.max_rounds}.items():
            if rounds is not None and rounds < 1:
                raise InputError(f"{option} must be at least 1, not {rounds}.")
        if self.budget_s is not None and not self.budget_s > 0:
            raise InputError(f"--budget must be more than 0 s, not {self.budget_s:g}.")
        if unknown := set(self.metrics) - METRICS.keys():
            raise InputError(f"--metric {min(unknown)} is none of {', '.join(METRICS)}.")

    @property
    def most_rounds(self) -> int:
        """How many rounds there are at most."""
        return self.rounds or self.max_rounds or ROUNDS_MAX


@dataclass(frozen=True)
class CompareRun:
    """One call of ``compare``."""

    models: Sequence[str]
    aa: bool
    url: str | None
    metrics_url: str | None
    wire: Wire
    feeding: Feeding
    batch: int | None
    levels: Sequence[Level]
    stopping: Stopping
    window_s: float
    warmup_s: float
    margin_pct: float
    classes: str | None
    threads: int
    seed: int
    json: bool

    def run(self) -> None:
        """Measure, compare, and print; InputError for what contradicts itself or the models."""
        self._check()
        with open_subjects(
            self.models,
            url=self.url,
            intra_op_threads=self.threads,
            wire=self.wire,
            metrics_url=self.metrics_url,
        ) as subjects:
            check_same_inputs(subjects)
            if subjects[0].server is None and self.wire.protocol.name != "http":
                raise InputError("--protocol is for models on a server; these run in this process.")
            baseline, *variants = subjects
            samples = self.feeding.samples(baseline)
            size = resolve_batch(baseline.inputs, self.batch)
            quality = _quality(subjects, samples, size, self.classes)
            questions = Questions(
                baseline=baseline.name,
                variants=[variant.name for variant in variants],
                metrics=tuple(dict.fromkeys(self.stopping.metrics or self._asked)),
                levels=len(self.levels),
                margin=self.margin_pct / 100,
            )
            compared = self._measure(subjects, samples, size, questions)
        levels = summarise_levels(compared.windows, seed=self.seed)
        if self.json:
            print_json(
                comparison_json(questions, compared, quality, levels, baseline.server, aa=self.aa)
            )
        else:
            print_comparison(questions, compared, quality, levels)

    @property
    def _is_by_schedule(self) -> bool:
        return not all(isinstance(level, int) for level in self.levels)

    @property
    def _asked(self) -> Sequence[str]:
        return ASKED_BY_SCHEDULE if self._is_by_schedule else ASKED

    def _check(self) -> None:
        if self.aa and len(set(self.models)) != 1:
            raise InputError("--aa compares one model with itself; give that model alone.")
        if len(self.models) < 2:
            raise InputError("compare needs a baseline and at least one variant.")
        if not 0 <= self.margin_pct < 100:
            raise InputError(
                f"--margin is a percentage from 0 to below 100, not {self.margin_pct:g}."
            )
        if self.classes is not None and self.feeding.data is None:
            raise InputError("--output is for --data: without samples no outputs are compared.")
        self.stopping.check()
        check_within("--window", self.window_s, 1e-3, 3600)
        check_within("--warmup", self.warmup_s, 0, 3600)
        check_within("--seed", self.seed, 0, 2**63)
        check_server_options(self.url, self.metrics_url, self.wire)

    def _measure(
        self, subjects: Sequence[Subject], samples: Samples | None, batch: int, questions: Questions
    ) -> Comparison:
        """Load ``subjects`` side by side, with progress on a terminal."""
        feeds = self.feeding.feeds(subjects[0], samples, batch)
        check = self.feeding.check(subjects[0], feeds, batch)
        for subject in subjects:  # what the model refuses is wrong input, not an error rate
            subject.infer(feeds[0])
        in_flight = (
            CONNECTIONS_MAX
            if self._is_by_schedule
            else max(level for level in self.levels if isinstance(level, int))
        )
        arms = [subject.arm(feeds, batch, in_flight=in_flight, check=check) for subject in subjects]
        rounds_max = self.stopping.most_rounds
        with progress() as shown:
            task = shown.add_task("loading", total=len(arms) * len(self.levels) * rounds_max)

            def measure(rounds: int, done: tuple[LoadWindow, ...]) -> tuple[LoadWindow, ...]:
                return measure_rounds(
                    arms,
                    levels=self.levels,
                    rounds=rounds,
                    window_s=self.window_s,
                    warmup_s=self.warmup_s,
                    seed=self.seed,
                    done=done,
                    on_window=lambda window: shown.advance(task),
                )

            if self.stopping.rounds is not None:
                return measure_rounds_fixed(
                    measure, questions, rounds=self.stopping.rounds, seed=self.seed
                )
            return measure_until_clear(
                measure,
                questions,
                rounds_max=rounds_max,
                budget_s=self.stopping.budget_s,
                seed=self.seed,
            )


def _quality(
    subjects: Sequence[Subject], samples: Samples | None, batch: int, output: str | None
) -> list[QualitySummary]:
    """How good and how close every subject is on ``samples``; nothing without samples."""
    if samples is None:
        return []
    answers = [answers_of(subject, samples.inputs, batch) for subject in subjects]
    return [
        measure_quality(subject.name, answers[0], found, samples.labels, classes=output)
        for subject, found in zip(subjects, answers, strict=True)
    ]
