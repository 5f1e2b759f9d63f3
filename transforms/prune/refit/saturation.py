"""What an error means behind a layer: where the next activation is flat, it means nothing.

A sum that shall be below zero before a Relu may be anywhere below it. A fit that knows this spends
its few weights on what passes (asymmetric reconstruction, Zhang et al., 2015). The set of values
that an activation makes the same of is an interval, so the goal of a fit is the nearest point of
it to what is made by now; fitting and choosing the goal in turns never raises the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant_array, input_at, only_consumer


@dataclass(frozen=True)
class Limits:
    """Below ``low`` and above ``high`` the next activation is flat."""

    low: float = -inf
    high: float = inf

    def goal(self, wanted: Array, made: Array) -> Array:
        """The nearest to ``made`` of what the activation makes the same of as of ``wanted``."""
        goal = wanted
        if self.low > -inf:
            goal = np.where(wanted <= self.low, np.minimum(made, np.float32(self.low)), goal)
        if self.high < inf:
            goal = np.where(wanted >= self.high, np.maximum(made, np.float32(self.high)), goal)
        return goal


NO_LIMITS = Limits()


def limits_of(value: ir.Value) -> Limits:
    """The limits of what alone reads ``value``."""
    node = only_consumer(value)
    if node is None or node.domain:
        return NO_LIMITS
    if node.op_type == "Relu":
        return Limits(low=0.0)
    if node.op_type == "Clip":
        ends = (constant_array(input_at(node, 1)), constant_array(input_at(node, 2)))
        low, high = (None if end is None else float(end) for end in ends)
        return Limits(-inf if low is None else low, inf if high is None else high)
    return NO_LIMITS
