"""Ranks over all layers: those that lose least for a given cost.

Every layer has options, each with a cost and a loss. From the dearest on, the step of the least
loss for each unit of cost is taken until the target is reached; then whatever fits below the
target is given back where it helps most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimton.core.errors import InputError


@dataclass(frozen=True)
class Option:
    """One way to compute a layer: ``rank`` None leaves it as it is, at no loss."""

    rank: int | None
    cost: float
    loss: float


def least_loss(options: Sequence[Sequence[Option]], rest: float, target: float) -> list[Option]:
    """One of the options of every layer, so that their costs and ``rest`` are at most ``target``.

    The first option of each layer is to leave it as it is. Raises InputError where even the
    cheapest cost more.
    """
    chosen = [ways[0] for ways in options]
    while (cost := rest + sum(option.cost for option in chosen)) > target:
        steps = list(_steps(options, chosen, down=True))
        if not steps:
            whole = rest + sum(ways[0].cost for ways in options)
            raise InputError(
                f"the target is out of reach: factorised as far as possible, the model costs "
                f"{cost / whole:.0%} of what it costs now."
            )
        number, option = min(
            steps,
            key=lambda s: (s[1].loss - chosen[s[0]].loss) / (chosen[s[0]].cost - s[1].cost),
        )
        chosen[number] = option
    while True:
        room = target - rest - sum(option.cost for option in chosen)
        steps = [
            (number, option)
            for number, option in _steps(options, chosen, down=False)
            if option.cost - chosen[number].cost <= room
        ]
        if not steps:
            return chosen
        number, option = max(steps, key=lambda step: chosen[step[0]].loss - step[1].loss)
        chosen[number] = option


def _steps(
    options: Sequence[Sequence[Option]], chosen: Sequence[Option], *, down: bool
) -> Iterator[tuple[int, Option]]:
    """Every other option of a layer that is cheaper (``down``), or that loses less."""
    for number, (ways, now) in enumerate(zip(options, chosen, strict=True)):
        for option in ways:
            if option.cost < now.cost if down else option.loss < now.loss:
                yield number, option
