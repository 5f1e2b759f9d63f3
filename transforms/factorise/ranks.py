"""Choosing the rank of every candidate, by the goal that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.factorise.allocation import Option
from trimton.transforms.factorise.candidates import Candidate, Ranks
from trimton.transforms.factorise.costs import LayerTime, measure, time_options
from trimton.transforms.factorise.settings import FactoriseSettings
from trimton.transforms.factorise.targets import reach_macs, reach_speedup, with_harm
from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.cost_profile import first_samples
from trimton.transforms.report import Skipped, Step

_TOO_SLOW = "factorising it saves no time on this machine"


@dataclass(frozen=True)
class Choice:
    """The ranks by output with their ``times``, if measured, the layers that keep their whole
    rank and why, and the goal's step."""

    ranks: Ranks
    times: Mapping[str, LayerTime]
    skipped: tuple[Skipped, ...]
    goal: Step


def choose(
    work: ir.Model,
    candidates: Sequence[Candidate],
    settings: FactoriseSettings,
    samples: Mapping[str, Array],
) -> Choice:
    """The ranks that ``settings`` ask for; raises InputError where a target is out of reach."""
    if settings.ratio is not None or settings.energy is not None:
        return _one_by_one(work, candidates, settings, samples)
    return _over_all(work, with_harm(work, candidates, samples), settings, samples)


def _one_by_one(
    work: ir.Model,
    candidates: Sequence[Candidate],
    settings: FactoriseSettings,
    samples: Mapping[str, Array],
) -> Choice:
    """A rule for each layer by itself: a share of its work, or of its energy."""
    ranks: dict[str, int] = {}
    skipped: list[Skipped] = []
    for candidate in candidates:
        rank = _rank(candidate, settings)
        if rank is None:
            why = "no rank that keeps the energy asked for saves multiply-accumulates"
            skipped.append(Skipped(candidate.layer.name, why))
        else:
            ranks[candidate.layer.output] = rank
    times: Mapping[str, LayerTime] = {}
    if settings.measure and ranks:
        (times,) = measure(work, candidates, [ranks], first_samples(work, samples))
        for candidate in candidates:
            output = candidate.layer.output
            if output in ranks and not times[output].is_saved:
                del ranks[output]
                skipped.append(Skipped(candidate.layer.name, _TOO_SLOW))
    goal = (
        Step("goal", f"ranks that keep {settings.energy:.1%} of each layer's energy", len(ranks))
        if settings.ratio is None
        else Step("goal", f"ranks that save {settings.ratio:.0%} of each layer's work", len(ranks))
    )
    return Choice(ranks, times, tuple(skipped), goal)


def _rank(candidate: Candidate, settings: FactoriseSettings) -> int | None:
    """The largest possible rank within the ratio, or the smallest that keeps the energy."""
    if settings.ratio is not None:
        most = (1 - settings.ratio) * candidate.macs()
        fitting = [rank for rank in candidate.ranks if candidate.macs(rank) <= most]
        return fitting[-1] if fitting else candidate.ranks[0]
    least = candidate.spectrum.rank_for(settings.energy or 1.0)
    return next((rank for rank in candidate.ranks if rank >= least), None)


def _over_all(
    work: ir.Model,
    candidates: Sequence[Candidate],
    settings: FactoriseSettings,
    samples: Mapping[str, Array],
) -> Choice:
    feed = first_samples(work, samples)
    timed = time_options(work, candidates, feed) if settings.measure else None
    if settings.target_macs is not None:
        asked, kind = settings.target_macs, "share of multiply-accumulates"
        reached = reach_macs(work, candidates, asked, timed)
    else:
        assert settings.target_speedup is not None
        assert timed is not None
        asked, kind = settings.target_speedup, "measured speed-up"
        reached = reach_speedup(work, candidates, asked, timed, feed)
    ranks = reached.ranks
    skipped = tuple(
        Skipped(candidate.layer.name, _why_whole(number, timed))
        for number, candidate in enumerate(candidates)
        if candidate.layer.output not in ranks
    )
    detail = {"kind": kind, "asked": asked, "reached": reached.value}
    what = f"ranks chosen for a target of {asked:g} ({kind}); {reached.value:.3g} reached"
    times = measure(work, candidates, [ranks], feed)[0] if settings.measure else {}
    return Choice(ranks, times, skipped, Step("goal", what, len(ranks), detail))


def _why_whole(number: int, timed: Sequence[Sequence[Option]] | None) -> str:
    if timed is not None and len(timed[number]) == 1:
        return _TOO_SLOW
    return "the target is reached at less loss by other layers"
