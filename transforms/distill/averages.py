"""A running mean of a module's weights, which generalises better than the last ones.

Source: Polyak and Juditsky 1992; the growing decay as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Averages:
    """The mean of all tensors of ``module`` in floating point, running statistics too.

    The decay grows with the steps, (1 + n) / (10 + n), up to ``decay``, so that the mean does
    not hang on to where training began.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._live = {n: t for n, t in module.state_dict().items() if t.is_floating_point()}
        self._mean = {name: tensor.clone() for name, tensor in self._live.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._mean.values()), list(self._live.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the mean as its weights within the block."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(own)

    def state(self) -> dict[str, Tensor]:
        """The mean, by name: the tensors themselves."""
        return self._mean

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``."""
        for name, tensor in self._mean.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(values[name])
