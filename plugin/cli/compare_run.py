"""What ``compare`` does with its options: open the models, load them side by side, tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from trimton.core.errors import InputError
from trimton.perf.load.feeds import resolve_batch
from trimton.perf.load.open_loop import CONNECTIONS_MAX
from trimton.perf.load.rounds import Level, measure_rounds
from trimton.perf.quality import measure_quality
from trimton.perf.results import LoadWindow, QualitySummary
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.stats.sequential import (
    Comparison,
    Questions,
    measure_rounds_fixed,
    measure_until_clear,
)
from trimton.plugin.cli.bounds import check_within
from trimton.plugin.cli.compare_output import comparison_json, print_comparison
from trimton.plugin.cli.connection_options import ConnectionOptions
from trimton.plugin.cli.feed_options import FeedOptions
from trimton.plugin.cli.load_options import LevelOptions
from trimton.plugin.cli.output import print_json, progress
from trimton.plugin.cli.running_options import RunningOptions
from trimton.plugin.cli.stopping_options import StoppingOptions
from trimton.plugin.feeding import Feeding
from trimton.plugin.samples import Samples
from trimton.plugin.subjects import Subject, answers_of, check_same_inputs, open_subjects


@dataclass(frozen=True)
class CompareRun:
    """One call of ``compare``; ``classes`` names the output that holds scores of classes."""

    models: Sequence[str]
    aa: bool
    connection: ConnectionOptions
    feed: FeedOptions
    load: LevelOptions
    stopping: StoppingOptions
    running: RunningOptions
    classes: str | None
    json: bool

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The loads to compare under."""
        return self.load.fixed_levels()

    @cached_property
    def feeding(self) -> Feeding:
        """What requests carry."""
        return self.feed.feeding(self.running.seed)

    def run(self) -> None:
        """Measure, compare, and print; InputError for what contradicts itself or the models."""
        wire = self.connection.wire()
        self._check()
        with open_subjects(
            self.models,
            url=self.connection.url,
            intra_op_threads=self.running.threads,
            wire=wire,
            metrics_url=self.connection.metrics_url,
        ) as subjects:
            check_same_inputs(subjects)
            if subjects[0].server is None and wire.protocol.name != "http":
                raise InputError("--protocol is for models on a server; these run in this process.")
            baseline, *variants = subjects
            samples = self.feeding.samples(baseline)
            size = resolve_batch(baseline.inputs, self.feed.batch)
            quality = _quality(subjects, samples, size, self.classes)
            questions = Questions(
                baseline=baseline.name,
                variants=[variant.name for variant in variants],
                metrics=self.stopping.metrics(by_schedule=self._is_by_schedule),
                levels=len(self.levels),
                margin=self.stopping.margin / 100,
            )
            compared = self._measure(subjects, samples, size, questions)
        levels = summarise_levels(compared.windows, seed=self.running.seed)
        if self.json:
            print_json(
                comparison_json(questions, compared, quality, levels, baseline.server, aa=self.aa)
            )
        else:
            print_comparison(questions, compared, quality, levels)

    @property
    def _is_by_schedule(self) -> bool:
        return not all(isinstance(level, int) for level in self.levels)

    def _check(self) -> None:
        if self.aa and len(set(self.models)) != 1:
            raise InputError("--aa compares one model with itself; give that model alone.")
        if len(self.models) < 2:
            raise InputError("compare needs a baseline and at least one variant.")
        if self.classes is not None and self.feeding.data is None:
            raise InputError("--output is for --data: without samples no outputs are compared.")
        self.stopping.check()
        check_within("--seed", self.running.seed, 0, 2**63)

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
                    window_s=self.stopping.window,
                    warmup_s=self.stopping.warmup,
                    seed=self.running.seed,
                    done=done,
                    on_window=lambda window: shown.advance(task),
                )

            if self.stopping.rounds is not None:
                return measure_rounds_fixed(
                    measure, questions, rounds=self.stopping.rounds, seed=self.running.seed
                )
            return measure_until_clear(
                measure,
                questions,
                rounds_max=rounds_max,
                budget_s=self.stopping.budget,
                seed=self.running.seed,
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
