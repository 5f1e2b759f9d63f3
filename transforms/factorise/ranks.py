"""Choosing the rank of every candidate, by the goal that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.factorise.allocation import Option, least_loss
from trimton.transforms.factorise.candidates import Candidate, Ranks
from trimton.transforms.factorise.costs import factorised, mac_options, measure, time_options
from trimton.transforms.factorise.settings import FactoriseSettings
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array
from trimton.transforms.linear.kernel_times import kernel_times
from trimton.transforms.prune.cost_profile import first_sample, speedup
from trimton.transforms.prune.refit.damage import Damage
from trimton.transforms.report import Skipped, Step

_CORRECTIONS = 5
# A measured speed-up this close above the target is good enough.
_TOLERANCE = 0.03
_TOO_SLOW = "factorising it saves no time on this machine"
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Choice:
    """The ranks by output, the layers that keep their whole rank and why, and the goal's step."""

    ranks: Ranks
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


def with_harm(
    work: ir.Model, candidates: Sequence[Candidate], samples: Mapping[str, Array]
) -> tuple[Candidate, ...]:
    """The candidates weighted by what an error of each does to the outputs of the model.

    Each is tried alone at a middle rank; the harm is taken to grow with its lost variance.
    """
    damage = Damage(work, samples)
    weighted: list[Candidate] = []
    for candidate in candidates:
        rank = candidate.ranks[len(candidate.ranks) // 2]
        found = candidate.factors(rank)
        done = damage.of([candidate.layer.layer], [found.product], [found.shift])
        lost = max(candidate.spectrum.lost(rank), _SMALLEST)
        weighted.append(replace(candidate, harm=max(done, _SMALLEST) / lost))
    return tuple(weighted)


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
    if settings.measure and ranks:
        (times,) = measure(work, candidates, [ranks], first_sample(work, samples))
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
    return Choice(ranks, tuple(skipped), goal)


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
    feed = first_sample(work, samples)
    timed = time_options(work, candidates, feed) if settings.measure else None
    if settings.target_macs is not None:
        chosen, reached = _reach_macs(work, candidates, settings.target_macs, timed)
        kind, asked = "share of multiply-accumulates", settings.target_macs
    else:
        assert settings.target_speedup is not None
        assert timed is not None
        asked, kind = settings.target_speedup, "measured speed-up"
        chosen, reached = _reach_speedup(work, candidates, asked, timed, feed)
    ranks = _ranks(candidates, chosen)
    skipped = tuple(
        Skipped(candidate.layer.name, _why_whole(number, timed))
        for number, candidate in enumerate(candidates)
        if candidate.layer.output not in ranks
    )
    detail = {"kind": kind, "asked": asked, "reached": reached}
    what = f"ranks chosen for a target of {asked:g} ({kind}); {reached:.3g} reached"
    return Choice(ranks, skipped, Step("goal", what, len(ranks), detail))


def _why_whole(number: int, timed: Sequence[Sequence[Option]] | None) -> str:
    if timed is not None and len(timed[number]) == 1:
        return _TOO_SLOW
    return "the target is reached at less loss by other layers"


def _ranks(candidates: Sequence[Candidate], chosen: Sequence[Option]) -> dict[str, int]:
    return {
        candidate.layer.output: option.rank
        for candidate, option in zip(candidates, chosen, strict=True)
        if option.rank is not None
    }


def _reach_macs(
    work: ir.Model,
    candidates: Sequence[Candidate],
    target: float,
    timed: Sequence[Sequence[Option]] | None,
) -> tuple[list[Option], float]:
    """Only ranks that save time take part where that was measured."""
    whole = model_cost(work).macs
    if whole is None:
        raise InputError("target macs: the multiply-accumulates of the model are not known.")
    options = mac_options(candidates)
    if timed is not None:
        fast = [{option.rank for option in ways} for ways in timed]
        options = [
            [option for option in ways if option.rank in known]
            for ways, known in zip(options, fast, strict=True)
        ]
    rest = whole - sum(candidate.macs() for candidate in candidates)
    chosen = least_loss(options, rest, target * whole)
    return chosen, (rest + sum(option.cost for option in chosen)) / whole


def _reach_speedup(
    work: ir.Model,
    candidates: Sequence[Candidate],
    target: float,
    options: Sequence[Sequence[Option]],
    feed: Mapping[str, Array],
) -> tuple[list[Option], float]:
    """The prediction is corrected by what whole models measure."""
    layers = sum(ways[0].cost for ways in options)
    rest = rest_us(work, layers, feed)
    least = rest + sum(min(option.cost for option in ways) for ways in options)
    aim = max(least, (rest + layers) / target)
    tried: list[tuple[list[Option], float]] = []
    for _ in range(_CORRECTIONS):
        chosen = least_loss(options, rest, aim)
        reached = speedup(work, factorised(work, candidates, _ranks(candidates, chosen)), feed)
        tried.append((chosen, reached))
        if target <= reached <= target * (1 + _TOLERANCE):
            break
        aim = max(least, aim * reached / (target * (1 + _TOLERANCE / 2)))
    reaching = [one for one in tried if one[1] >= target * (1 - _TOLERANCE)]
    if not reaching:
        fastest = max(reached for _, reached in tried)
        raise InputError(
            f"target speedup {target:g}: is out of reach; the fastest ranks tried run "
            f"{fastest:.2f} times as fast as the model on this machine."
        )
    return min(reaching, key=lambda one: abs(np.log(one[1] / target)))


def rest_us(work: ir.Model, layers_us: float, feed: Mapping[str, Array]) -> float:
    """Microseconds of one run outside of the candidates."""
    (times,) = kernel_times([work], feed)
    return max(0.0, sum(times.values()) - layers_us)
