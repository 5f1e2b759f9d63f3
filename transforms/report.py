"""What a transform says about its work: what it changed, what it left alone, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelCost:
    """What a model weighs.

    ``macs`` counts multiply-accumulates of one inference with every free dimension 1;
    None where a shape cannot be inferred. ``size_bytes`` is the serialised size with
    external data, ``parameters`` the number of elements in weights.
    """

    parameters: int
    macs: int | None
    size_bytes: int
    nodes: int


@dataclass(frozen=True)
class Step:
    """One thing a transform did: ``what`` in words, ``count`` how often, ``detail`` for tools."""

    name: str
    what: str
    count: int = 1
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """One thing a transform left alone: ``what`` (a node or tensor name) and ``why``."""

    what: str
    why: str


@dataclass(frozen=True)
class TransformReport:
    """The account of one transform.

    ``max_relative_difference`` is the largest |new - old| over probe inputs, divided by the
    largest |old| of that output; None where no probe could be run (``skipped`` says why).
    """

    transform: str
    changed: bool
    before: ModelCost
    after: ModelCost
    max_relative_difference: float | None
    steps: tuple[Step, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The machine form: stable names, additions only."""
        return {
            "transform": self.transform,
            "changed": self.changed,
            "parameters": {"before": self.before.parameters, "after": self.after.parameters},
            "macs": {"before": self.before.macs, "after": self.after.macs},
            "size_bytes": {"before": self.before.size_bytes, "after": self.after.size_bytes},
            "nodes": {"before": self.before.nodes, "after": self.after.nodes},
            "max_relative_difference": self.max_relative_difference,
            "steps": [
                {"name": s.name, "what": s.what, "count": s.count, "detail": dict(s.detail)}
                for s in self.steps
            ],
            "skipped": [{"what": s.what, "why": s.why} for s in self.skipped],
        }
