"""``perf`` with perf_analyzer in the place of our own load generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from trimton.core.errors import InputError
from trimton.perf.engines.levels import summarise_analyzer
from trimton.perf.engines.perf_analyzer import (
    AnalyzerRound,
    AnalyzerSettings,
    Target,
    run_perf_analyzer,
)
from trimton.perf.engines.program import Program
from trimton.perf.load.rounds import Level
from trimton.perf.targets.tensors import Array
from trimton.plugin.load_test import LoadTest, Measuring
from trimton.plugin.subjects import ServedSubject, Subject


def run_analyzer(
    program: Program,
    subject: Subject,
    feeds: Sequence[Mapping[str, Array]],
    batch: int,
    levels: Iterable[Level],
    measuring: Measuring,
    *,
    on_round: Callable[[AnalyzerRound], None] = lambda measured: None,
) -> LoadTest:
    """Load ``subject`` at ``levels``, all of them requests in flight.

    Raises InputError for a subject that is not on a server, and what run_perf_analyzer raises.
    """
    if not isinstance(subject, ServedSubject):
        raise InputError(
            f"{subject.name} runs in this process; perf_analyzer loads models on a server only: "
            "give a model folder, or --url and a name."
        )
    target = Target(
        variant=subject.name,
        model=subject.model,
        url=str(subject.access.address),
        protocol="grpc" if subject.wire.protocol.name == "grpc" else "http",
        endpoint=subject.endpoint,
        specs=subject.inputs,
        feeds=feeds,
        batch=batch,
        batches=bool(subject.largest_batch),
    )
    measured = run_perf_analyzer(
        program,
        target,
        levels=[level for level in levels if isinstance(level, int)],
        rounds=measuring.rounds if measuring.rule is None else 1,
        settings=_settings(measuring),
        on_round=on_round,
    )
    return LoadTest((), summarise_analyzer(measured, program, target, seed=measuring.seed))


def _settings(measuring: Measuring) -> AnalyzerSettings:
    rule = measuring.rule
    if rule is None:
        return AnalyzerSettings.like_one_window(measuring.window_s)
    return AnalyzerSettings(
        interval_ms=round(1000 * measuring.window_s),
        spread_pct=100 * rule.spread,
        trials_max=rule.trials_max,
        percentile=None if rule.percentile is None else round(100 * rule.percentile),
    )
