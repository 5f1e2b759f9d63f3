"""What reconstruction says that it did: unit by unit, and for the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimton.transforms.report import Skipped, Step


@dataclass(frozen=True)
class TunedUnit:
    """What came of one unit.

    Errors are those of its targets on held-out samples, as shares of their variance. Without
    ``is_kept`` nothing of it was changed. ``turned`` is the share of weights whose integers
    changed, ``moved`` by how much each kind of activations stretched its step, by its scale's
    name, and ``samples`` how many it was tuned on.
    """

    name: str
    layers: tuple[str, ...]
    before: float
    after: float
    is_kept: bool
    turned: float
    moved: Mapping[str, float]
    samples: int

    def step(self) -> Step:
        """Its entry in the report."""
        outcome = f"{self.turned:.1%} of its weights turned" if self.is_kept else "left as it was"
        return Step(
            name="reconstruct",
            what=f"layers to {self.layers[-1]}, error {self.before:.3g} -> {self.after:.3g}: "
            f"{outcome}",
            count=len(self.layers),
            detail={
                "unit": self.name,
                "layers": list(self.layers),
                "error": {"before": self.before, "after": self.after},
                "kept": self.is_kept,
                "turned_share": self.turned,
                "activation_steps": dict(self.moved),
                "samples": self.samples,
            },
        )


def account(
    units: Sequence[TunedUnit], before: float, after: float, judged: int
) -> tuple[Step, ...]:
    """One step for the outputs of the model, then one for each unit."""
    kept = sum(unit.is_kept for unit in units)
    whole = Step(
        name="reconstruct",
        what=f"units of {len(units)} are closer to the float model; error of the outputs on "
        f"{judged:,} held-out samples {before:.3g} -> {after:.3g}",
        count=kept,
        detail={"error": {"before": before, "after": after}, "held_out_samples": judged},
    )
    return whole, *(unit.step() for unit in units)


def left_alone(units: Sequence[TunedUnit], before: float, after: float) -> tuple[Skipped, ...]:
    """Units that did not come closer, and all of them where the outputs did not."""
    why = "its output on held-out samples came no closer"
    skipped = [Skipped(unit.name, why) for unit in units if not unit.is_kept]
    if not after < before:
        skipped.append(
            Skipped("the model", f"its outputs came no closer ({before:.3g} -> {after:.3g})")
        )
    return tuple(skipped)
