"""Ranks over all layers for a target: of multiply-accumulates, or of speed on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.factorise.allocation import Option, least_loss
from trimton.transforms.factorise.candidates import Candidate, Ranks
from trimton.transforms.factorise.costs import factorised, mac_options
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.kernel_times import kernel_times
from trimton.transforms.prune.cost_profile import speedup
from trimton.transforms.prune.refit.damage import Damage

_CORRECTIONS = 5
# A measured speed-up this close above the target is good enough.
_TOLERANCE = 0.03
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Reached:
    """The ranks by output, and what is reached with them: a share of work, or a speed-up."""

    ranks: Ranks
    value: float


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


def reach_macs(
    work: ir.Model,
    candidates: Sequence[Candidate],
    target: float,
    timed: Sequence[Sequence[Option]] | None,
) -> Reached:
    """The ranks that lose least for a share of the work; only of those that save time, where
    that was measured (``timed``). Raises InputError where the target is out of reach."""
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
    share = (rest + sum(option.cost for option in chosen)) / whole
    return Reached(_ranks(candidates, chosen), share)


def reach_speedup(
    work: ir.Model,
    candidates: Sequence[Candidate],
    target: float,
    options: Sequence[Sequence[Option]],
    feed: Mapping[str, Array],
) -> Reached:
    """The ranks that lose least for a speed; ``options`` cost microseconds. The prediction is
    corrected by what whole models measure. Raises InputError where the target is out of reach."""
    layers = sum(ways[0].cost for ways in options)
    rest = _rest_us(work, layers, feed)
    least = rest + sum(min(option.cost for option in ways) for ways in options)
    aim = max(least, (rest + layers) / target)
    tried: list[Reached] = []
    for _ in range(_CORRECTIONS):
        ranks = _ranks(candidates, least_loss(options, rest, aim))
        reached = speedup(work, factorised(work, candidates, ranks), feed)
        tried.append(Reached(ranks, reached))
        if target <= reached <= target * (1 + _TOLERANCE):
            break
        aim = max(least, aim * reached / (target * (1 + _TOLERANCE / 2)))
    reaching = [one for one in tried if one.value >= target * (1 - _TOLERANCE)]
    if not reaching:
        fastest = max(one.value for one in tried)
        raise InputError(
            f"target speedup {target:g}: is out of reach; the fastest ranks tried run "
            f"{fastest:.2f} times as fast as the model on this machine."
        )
    return min(reaching, key=lambda one: (one.value < target, abs(np.log(one.value / target))))


def _rest_us(work: ir.Model, layers_us: float, feed: Mapping[str, Array]) -> float:
    """Microseconds of one run outside of the candidates."""
    (times,) = kernel_times([work], feed)
    return max(0.0, sum(times.values()) - layers_us)


def _ranks(candidates: Sequence[Candidate], chosen: Sequence[Option]) -> dict[str, int]:
    return {
        candidate.layer.output: option.rank
        for candidate, option in zip(candidates, chosen, strict=True)
        if option.rank is not None
    }
