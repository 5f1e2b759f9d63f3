"""The learning rate of every step: a linear warm-up, then half a cosine down to 0."""

from __future__ import annotations

from math import cos, pi


def learning_rate(step: int, steps: int, highest: float, warmup: float) -> float:
    """The rate of ``step`` (from 0) of ``steps``; ``warmup`` is the share of steps that rise.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    rising = round(warmup * steps)
    if step < rising:
        return highest * (step + 1) / rising
    return highest * 0.5 * (1 + cos(pi * (step - rising) / max(1, steps - rising)))
