"""Mixed precision: the least set of layers in float that reaches what was asked for.

Layers leave the integers in the order of the error that they cause for each multiply-accumulate
that becomes slower. How many of them must, or may, is found by halving, each time with the
outputs of the model so made. Whatever was measured is remembered: where the goal is out of reach
the best of all is the result.

Source: the mixed-precision search of Wu et al. 2020, arXiv:2004.09602, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trimton.transforms.quantize.fidelity import Fidelity, Reference
from trimton.transforms.quantize.quantiser import Quantised, Quantiser
from trimton.transforms.quantize.sensitivity import LayerDamage, named, sensitivities
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.report import Step

# A layer costs at least this share of the model's MACs: calls and conversions are not free.
_SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Goal:
    """What the outputs must keep, and how many MACs may leave the integers for it.

    ``agreement`` (share of rows) and ``sqnr_db`` are the least that is wanted, None for no wish.
    ``float_macs`` is a share of the model's multiply-accumulates, which stands for latency:
    unlike seconds it gives the same model every time.
    """

    agreement: float | None = None
    sqnr_db: float | None = None
    float_macs: float = 1.0

    def is_met(self, fidelity: Fidelity) -> bool:
        """Whether the outputs are good enough; they never are without a wish."""
        wishes = [
            found is not None and found >= wanted
            for wanted, found in (
                (self.agreement, fidelity.agreement),
                (self.sqnr_db, fidelity.sqnr_db),
            )
            if wanted is not None
        ]
        return bool(wishes) and all(wishes)


def goal_of(settings: QuantizeSettings) -> Goal | None:
    """What ``settings`` ask for; None where all layers may be in integers whatever it costs."""
    if settings.min_agreement is None and settings.min_sqnr_db is None:
        return None
    return Goal(settings.min_agreement, settings.min_sqnr_db, settings.max_float_macs)


@dataclass(frozen=True)
class Mixed:
    """The chosen model, its layers in float, and the fidelity of it and of all in integers."""

    made: Quantised
    in_float: tuple[str, ...]
    fidelity: Fidelity
    before: Fidelity
    float_macs: float
    is_met: bool
    damages: tuple[LayerDamage, ...] = ()


def mix(quantiser: Quantiser, reference: Reference, goal: Goal) -> Mixed:
    """The model with the fewest layers in float that meets ``goal``, or else the best one."""
    search = _Search(quantiser, reference, ())
    before = search.try_first(0).fidelity
    if goal.is_met(before):
        return search.result(goal, search.tried[0], before)
    damages = sensitivities(quantiser, reference)
    search = _Search(quantiser, reference, _within(damages, goal.float_macs), search.tried)
    search.halve(goal)
    return search.result(goal, search.best(goal), before, damages)


def mixed_step(mixed: Mixed) -> Step:
    """What stayed in float and what that brought; every layer's own damage in the detail."""
    missed = "" if mixed.is_met else "; what was asked for is out of reach"
    return Step(
        "mixed-precision",
        f"layers left in float ({mixed.float_macs:.1%} of the multiply-accumulates): outputs at "
        f"{mixed.fidelity}, {mixed.before} without{missed}",
        len(mixed.in_float),
        {
            "in_float": list(mixed.in_float),
            "float_macs": mixed.float_macs,
            "is_met": mixed.is_met,
            "sqnr_db": {"before": mixed.before.sqnr_db, "after": mixed.fidelity.sqnr_db},
            "agreement": {"before": mixed.before.agreement, "after": mixed.fidelity.agreement},
            "layers": [
                {
                    "name": damage.layer,
                    "sqnr_db": damage.fidelity.sqnr_db,
                    "agreement": damage.fidelity.agreement,
                    "macs_share": damage.macs_share,
                }
                for damage in mixed.damages
            ],
        },
    )


def _within(damages: Sequence[LayerDamage], float_macs: float) -> tuple[LayerDamage, ...]:
    """The layers to leave in float, most error for a MAC first, as many as the budget holds."""
    ordered = sorted(damages, key=lambda d: -d.fidelity.error / max(d.macs_share, _SMALLEST_SHARE))
    chosen: list[LayerDamage] = []
    used = 0.0
    for damage in ordered:
        if used + damage.macs_share <= float_macs:
            chosen.append(damage)
            used += damage.macs_share
    return tuple(chosen)


@dataclass(frozen=True)
class _Candidate:
    made: Quantised
    in_float: tuple[LayerDamage, ...]
    fidelity: Fidelity


@dataclass
class _Search:
    """Models with the first of ``order`` in float, by how many."""

    quantiser: Quantiser
    reference: Reference
    order: tuple[LayerDamage, ...]
    tried: dict[int, _Candidate] = field(default_factory=dict)

    def try_first(self, count: int) -> _Candidate:
        """The model with the first ``count`` in float, made once."""
        if count not in self.tried:
            in_float = self.order[:count]
            placement = self.quantiser.place(named([damage.layer for damage in in_float]))
            made = self.quantiser.make(placement)
            fidelity = self.reference.fidelity(made.model)
            self.tried[count] = _Candidate(made, in_float, fidelity)
        return self.tried[count]

    def halve(self, goal: Goal) -> None:
        """Try numbers between one that misses the goal and one that meets it, or all there are."""
        missed, met = 0, self._most()
        if not goal.is_met(self.try_first(met).fidelity):
            return
        while met - missed > 1:
            middle = (missed + met) // 2
            if goal.is_met(self.try_first(middle).fidelity):
                met = middle
            else:
                missed = middle

    def best(self, goal: Goal) -> _Candidate:
        """The least of those that meet ``goal``, or else the closest to the float model."""
        met = [count for count, one in self.tried.items() if goal.is_met(one.fidelity)]
        if met:
            return self.tried[min(met)]
        return min(
            self.tried.values(),
            key=lambda one: (one.fidelity.error, len(one.in_float)),
        )

    def result(
        self,
        goal: Goal,
        chosen: _Candidate,
        before: Fidelity,
        damages: tuple[LayerDamage, ...] = (),
    ) -> Mixed:
        return Mixed(
            made=chosen.made,
            in_float=tuple(damage.layer for damage in chosen.in_float),
            fidelity=chosen.fidelity,
            before=before,
            float_macs=sum(damage.macs_share for damage in chosen.in_float),
            is_met=goal.is_met(chosen.fidelity),
            damages=damages,
        )

    def _most(self) -> int:
        """As many as there are, but one layer at least in integers."""
        counts = range(len(self.order), -1, -1)
        return next(
            count
            for count in counts
            if self.quantiser.place(named([d.layer for d in self.order[:count]])).weights
        )
