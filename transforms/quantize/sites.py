"""What will be quantised: the words that placement, calibration, weights and writing share."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.report import Skipped


@dataclass(frozen=True)
class ActivationSite:
    """Values that share one encoding and get a QuantizeLinear and DequantizeLinear each.

    ``values`` are names of values of the main graph; the first is the one that is measured where
    the others only move its numbers (Reshape, MaxPool), otherwise all are measured together.
    ``measured`` names those whose numbers decide the range. ``symmetric`` asks for a zero point
    in the middle of the type. ``bounds`` are those of the activation function that the encoding
    stands for: its range must not leave them. A site with a ``source`` (a value of another one)
    is not measured: its numbers are ``factor`` times those, and its integers the same.
    """

    values: tuple[str, ...]
    measured: tuple[str, ...]
    dtype: ir.DataType
    symmetric: bool = False
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    source: str | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class WeightSite:
    """A constant that becomes integers.

    ``layer`` is the node that computes with it, ``value`` the name of the constant, ``axis`` that
    of the output channels (None: one scale for all). ``kernel`` names the order in which the
    target's kernel sums (see targets), None where its sums cannot saturate. ``activation`` is the
    value that the weight multiplies and ``bias`` the constant added afterwards, if any. An operand
    (of Add, Mul, Concat) is encoded like an activation, anything else is symmetric.
    """

    layer: str
    value: str
    axis: int | None
    dtype: ir.DataType
    kernel: str | None = None
    activation: str | None = None
    bias: str | None = None
    is_operand: bool = False


@dataclass(frozen=True)
class Placement:
    """What one target computes in integers of one model, and what stays in float and why."""

    activations: tuple[ActivationSite, ...]
    weights: tuple[WeightSite, ...]
    nodes: frozenset[str]
    skipped: tuple[Skipped, ...]
