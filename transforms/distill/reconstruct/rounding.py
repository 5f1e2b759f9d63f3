"""AdaRound: which way to round each weight, learnt by gradients.

A weight w in steps s becomes floor(w / s) or one more. In between stands h in 0 ... 1, a sigmoid of
a parameter, stretched and cut so that it reaches both ends. A growing force pushes each h to the
nearer end until all are decided:

    sum of 1 - |2 h - 1|^b,  b falling from 20 to 2

Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
arXiv:2004.10568.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LOW, _HIGH = -0.1, 1.1
_SHARPEST, _BLUNTEST = 20.0, 2.0


class Rounding(nn.Module):
    """The roundings of one weight.

    ``steps`` is the float weight in steps, zero point included, and ``integers`` what it is
    rounded to by now; ``low`` and ``high`` bound it. A weight whose integer is neither of its two
    neighbours (clipped, or moved for the sake of another) stays where it is.
    """

    def __init__(self, steps: Tensor, integers: Tensor, low: int, high: int) -> None:
        super().__init__()
        below = steps.floor()
        is_near = (integers == below) | (integers == below + 1)
        self.is_free = is_near & (below >= low) & (below + 1 <= high)
        self.below = torch.where(self.is_free, below, integers)
        share = (steps - below).clamp(0.01, 0.99)
        logit = torch.logit((share - _LOW) / (_HIGH - _LOW))
        self.logit = nn.Parameter(torch.where(self.is_free, logit, torch.zeros_like(logit)))

    def share_up(self) -> Tensor:
        """h: 0 for down, 1 for up, for each weight; 0 where it stays."""
        stretched = torch.sigmoid(self.logit) * (_HIGH - _LOW) + _LOW
        return stretched.clamp(0, 1) * self.is_free

    def forward(self) -> Tensor:
        """The weight in steps, between its neighbours."""
        return self.below + self.share_up()

    def undecided(self, sharpness: float) -> Tensor:
        """The mean over weights of 1 - |2 h - 1|^b for the exponent b = ``sharpness``."""
        distance = (2 * self.share_up() - 1).abs().pow(sharpness)
        return ((1 - distance) * self.is_free).mean()

    @torch.no_grad()
    def decided(self) -> Tensor:
        """The integers, each on the nearer side."""
        return self.below + (self.share_up() >= 0.5)


def sharpness_at(share: float) -> float:
    """The exponent when ``share`` of the time of deciding is over: along a line."""
    return _SHARPEST + (_BLUNTEST - _SHARPEST) * share
