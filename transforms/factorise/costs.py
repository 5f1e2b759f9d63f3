"""What each candidate costs at each rank: multiply-accumulates, or time measured on this machine.

Time is measured in the whole model, where layouts and fusions are as in service: kernels of the
model as it is, and of copies whose candidates are all factorised, are profiled in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.factorise.allocation import Option
from trimton.transforms.factorise.candidates import Candidate, Ranks
from trimton.transforms.factorise.split import first_of, split
from trimton.transforms.graph.edit import Array, Editor, only_consumer
from trimton.transforms.graph.kernel_times import KernelTimes, kernel_times, node_time
from trimton.transforms.linear.layers import find_linear_layers

# Copies that are profiled beside the model; times of other ranks are interpolated.
_COPIES = 4


@dataclass(frozen=True)
class LayerTime:
    """Microseconds of one layer in one run, as it is and factorised; None where not found."""

    whole_us: float | None
    factorised_us: float | None

    @property
    def is_saved(self) -> bool:
        """Whether factorising is known to save time."""
        return (
            self.whole_us is not None
            and self.factorised_us is not None
            and self.factorised_us < self.whole_us
        )


def factorised(work: ir.Model, candidates: Sequence[Candidate], ranks: Ranks) -> ir.Model:
    """A copy of ``work`` with these candidates at ``ranks``, without any refit."""
    copy = work.clone()
    editor = Editor(copy)
    twins = {layer.output: layer for layer in find_linear_layers(copy).layers}
    for candidate in candidates:
        output = candidate.layer.output
        if output in ranks:
            split(twins[output], candidate.factors(ranks[output]), editor)
    return copy


def measure(
    work: ir.Model,
    candidates: Sequence[Candidate],
    ways: Sequence[Ranks],
    feed: Mapping[str, Array],
) -> tuple[Mapping[str, LayerTime], ...]:
    """For each of ``ways`` to factorise the time of every candidate in it, by output."""
    models = [work, *(factorised(work, candidates, ranks) for ranks in ways)]
    before, *after = kernel_times(models, feed)
    found: list[Mapping[str, LayerTime]] = []
    for model, times, ranks in zip(models[1:], after, ways, strict=True):
        found.append(
            {
                candidate.layer.output: LayerTime(
                    node_time(before, candidate.layer.layer.node),
                    _both(times, first_of(model, candidate.layer)),
                )
                for candidate in candidates
                if candidate.layer.output in ranks
            }
        )
    return tuple(found)


def mac_options(candidates: Sequence[Candidate]) -> list[list[Option]]:
    """Every rank of each candidate with its multiply-accumulates, the whole layer first."""
    return [
        [
            Option(None, candidate.macs(), 0.0),
            *(Option(r, candidate.macs(r), candidate.loss(r)) for r in candidate.ranks),
        ]
        for candidate in candidates
    ]


def time_options(
    work: ir.Model, candidates: Sequence[Candidate], feed: Mapping[str, Array]
) -> list[list[Option]]:
    """Every rank that saves time with its microseconds, the whole layer first.

    A candidate whose kernels are not found by name has no rank.
    """
    shares = np.linspace(0, 1, _COPIES)
    ways = [
        {c.layer.output: c.ranks[round(share * (len(c.ranks) - 1))] for c in candidates}
        for share in shares
    ]
    measured = measure(work, candidates, ways, feed)
    return [_timed(candidate, ways, measured) for candidate in candidates]


def _timed(
    candidate: Candidate, ways: Sequence[Ranks], measured: Sequence[Mapping[str, LayerTime]]
) -> list[Option]:
    output = candidate.layer.output
    times = [found[output] for found in measured]
    whole = times[0].whole_us
    known = {
        ranks[output]: time.factorised_us
        for ranks, time in zip(ways, times, strict=True)
        if time.factorised_us is not None
    }
    if whole is None or not known:
        return [Option(None, 0.0 if whole is None else whole, 0.0)]
    costs = np.interp(candidate.ranks, sorted(known), [known[rank] for rank in sorted(known)])
    return [
        Option(None, whole, 0.0),
        *(
            Option(rank, float(cost), candidate.loss(rank))
            for rank, cost in zip(candidate.ranks, costs, strict=True)
            if cost < whole
        ),
    ]


def _both(times: KernelTimes, first: ir.Node) -> float | None:
    """The time of both layers that stand for one."""
    second = only_consumer(first.outputs[0])
    parts = [node_time(times, first), None if second is None else node_time(times, second)]
    return None if None in parts else sum(part for part in parts if part is not None)
