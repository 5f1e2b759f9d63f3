"""A graph as a list of calls, made for inputs of certain shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel

Replacement = Callable[[Tensor], Tensor]
# The place of every input that is left out.
ABSENT = 0


@dataclass(frozen=True)
class Step:
    """One call: ``kernel`` on the values in ``inputs``; afterwards those in ``dead`` are freed."""

    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...] = ()


@dataclass(frozen=True)
class Replace:
    """The value in ``slot`` is replaced by a function of it, which the caller gives by ``name``."""

    name: str
    slot: int


@dataclass(frozen=True)
class Plan:
    """Calls over numbered values.

    ``constants`` holds, by slot, what is the same in every run (None: made by a run);
    ``sources`` are the slots of what is given, ``results`` those of what is asked for.
    """

    constants: tuple[Tensor | None, ...]
    sources: tuple[int, ...]
    results: tuple[int, ...]
    steps: tuple[Step | Replace, ...]

    def run(
        self, given: Sequence[Tensor], replace: Mapping[str, Replacement]
    ) -> tuple[Tensor, ...]:
        """The results for ``given``, one a source; values die after their last use."""
        values = list(self.constants)
        for slot, tensor in zip(self.sources, given, strict=True):
            values[slot] = tensor
        for step in self.steps:
            if isinstance(step, Replace):
                values[step.slot] = replace[step.name](_present(values[step.slot]))
                continue
            store(values, step.outputs, step.kernel(*[values[slot] for slot in step.inputs]))
            for slot in step.dead:
                values[slot] = None
        return tuple(_present(values[slot]) for slot in self.results)


def store(
    values: list[Tensor | None],
    slots: Sequence[int],
    made: Tensor | tuple[Tensor | None, ...],
) -> None:
    """Put what a kernel made into its slots; a node may make more than is asked for."""
    if isinstance(made, tuple):
        for slot, tensor in zip(slots, made, strict=False):
            values[slot] = tensor
    else:
        values[slots[0]] = made


def with_deaths(steps: Sequence[Step | Replace], kept: Sequence[int]) -> tuple[Step | Replace, ...]:
    """``steps`` with every slot freed after the last step that reads it, except those ``kept``."""
    seen, ordered = {ABSENT, *kept}, list[Step | Replace]()
    for step in reversed(steps):
        if isinstance(step, Replace):
            seen.add(step.slot)  # it is read here, and may be asked for by nobody else
            ordered.append(step)
            continue
        touched = dict.fromkeys((*step.inputs, *step.outputs))
        dead = tuple(slot for slot in touched if slot not in seen)
        seen.update(dead)
        ordered.append(Step(step.kernel, step.inputs, step.outputs, dead))
    return tuple(reversed(ordered))


def _present(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a value is used before it is made")
    return value
