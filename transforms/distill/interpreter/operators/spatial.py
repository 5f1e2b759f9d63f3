"""Padding of sliding windows, as convolution and pooling share it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import NodeView


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes: sizes, steps and padding in elements.

    ``pads`` are those in front of every axis, then those behind; None where ``auto_pad`` asks for
    outputs of ceil(size / stride), the odd element behind (``is_upper``) or in front.
    """

    strides: list[int]
    dilations: list[int]
    pads: list[int] | None
    is_upper: bool = True

    @classmethod
    def of(cls, view: NodeView, rank: int) -> Window:
        """The window of ``view`` over ``rank`` spatial axes."""
        auto_pad = view.text("auto_pad", "NOTSET")
        given = view.integers("pads") or [0] * (2 * rank)
        pads = None if auto_pad.startswith("SAME") else [0] * (2 * rank)
        return cls(
            strides=view.integers("strides") or [1] * rank,
            dilations=view.integers("dilations") or [1] * rank,
            pads=given if auto_pad == "NOTSET" else pads,
            is_upper=auto_pad == "SAME_UPPER",
        )

    def padding(self, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """The padding in front of every axis, then behind, for spatial ``sizes``."""
        if self.pads is not None:
            return self.pads
        front, behind = [], []
        for size, k, stride, dilation in zip(
            sizes, kernel, self.strides, self.dilations, strict=True
        ):
            total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (k - 1) + 1 - size)
            small, large = total // 2, total - total // 2
            front.append(small if self.is_upper else large)
            behind.append(large if self.is_upper else small)
        return front + behind


def pad_spatial(x: Tensor, front: Sequence[int], behind: Sequence[int], value: float) -> Tensor:
    """``x`` [N, C, ...] with ``value`` in front of and behind its spatial axes."""
    pairs = zip(reversed(front), reversed(behind), strict=True)
    return F.pad(x, [amount for pair in pairs for amount in pair], value=value)
