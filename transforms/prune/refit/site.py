"""Sites: the layers that are refitted, and what they shall come close to."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.graph.edit import Array, only_consumer
from trimton.transforms.prune.refit.saturation import NO_LIMITS, Limits
from trimton.transforms.prune.ties import Layer


@dataclass(frozen=True)
class Site:
    """A layer to refit, the value it contributes to, and which channels of it stay.

    ``limits`` are those of what reads the target.
    ``order`` sorts sites: the place of the target's node, whether there is a producer, and the
    number of features. What makes the largest part of a sum, and learns most, comes last.
    ``producer`` is the layer that can be refitted together with it, None where there is none.
    """

    layer: Layer
    target: str
    is_kept: Array
    order: tuple[int, bool, int]
    producer: Layer | None = None
    limits: Limits = NO_LIMITS


@dataclass(frozen=True)
class Refit:
    """What a fit did: mean squared errors of ``target`` on held-out samples.

    They are shares of its variance in the original network.
    """

    layer: str
    target: str
    before: float
    after: float


def contribution(value: ir.Value) -> ir.Value:
    """The value that ``value`` is only ever added to, or itself: the end of a chain of sums."""
    while (node := only_consumer(value)) is not None and node.op_type == "Add":
        if node.domain or node.outputs[0].shape != value.shape:
            break
        value = node.outputs[0]
    return value
