"""Which weights of a layer may stay: N of every M neighbours, or a share of all of them.

Neighbours are input channels at one place of the kernel, for one output: the reduction axis, in
the order in which NVIDIA's sparse tensor cores read it (Mishra et al., 2021, arXiv:2104.08378,
section 3; ``apex.contrib.sparsity`` permutes convolutions to kernel places first, channels last).
Their 2:4 is the one pattern that they compute with.

Weights and scores are [features, outputs], the features in the order of ``reading_order``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import Array
from trimton.transforms.linear.layers import LinearLayer

# As in SparseGPT: a choice made for more features at once knows less of what was compensated.
_BLOCK = 128


class Pattern(ABC):
    """What decides which weights stay."""

    @property
    @abstractmethod
    def density(self) -> float:
        """The share of weights that stays."""

    @abstractmethod
    def why_not(self, layer: LinearLayer) -> str | None:
        """Why ``layer`` cannot have this pattern; None if it can."""

    @abstractmethod
    def block(self, features: int) -> int:
        """How many features, from any multiple of it on, can be decided by themselves."""

    @abstractmethod
    def keep(self, scores: Array, *, by_output: bool) -> Array:
        """Which of the weights with these ``scores`` [block, outputs] stay, as booleans.

        ``by_output`` compares the weights of each output with each other alone.
        """

    @abstractmethod
    def index_bits(self, count: int) -> int:
        """What it costs to store which of ``count`` weights stay."""


@dataclass(frozen=True)
class NofM(Pattern):
    """``kept`` of every ``of`` neighbouring weights stay."""

    kept: int
    of: int

    @property
    def density(self) -> float:
        return self.kept / self.of

    def why_not(self, layer: LinearLayer) -> str | None:
        channels = layer.shape[1] // int(np.prod(layer.kernel))
        if channels % self.of:
            of_group = " of a group" if layer.groups > 1 else ""
            return f"its input channels{of_group} ({channels}) are no multiple of {self.of}"
        return None

    def block(self, features: int) -> int:
        return self.of

    def keep(self, scores: Array, *, by_output: bool) -> Array:
        neighbours = scores.reshape(-1, self.of, scores.shape[1])
        rank = np.argsort(np.argsort(-neighbours, axis=1, kind="stable"), axis=1, kind="stable")
        return (rank < self.kept).reshape(scores.shape)

    def index_bits(self, count: int) -> int:
        """An index within its neighbours for each weight that stays, as sparse tensor cores do."""
        return count * self.kept // self.of * ceil(log2(self.of))

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"


@dataclass(frozen=True)
class Unstructured(Pattern):
    """A share of the weights of each layer goes (``ratio``), wherever they are."""

    ratio: float

    @property
    def density(self) -> float:
        return 1 - self.ratio

    def why_not(self, layer: LinearLayer) -> str | None:
        return None

    def block(self, features: int) -> int:
        return min(features, _BLOCK)

    def keep(self, scores: Array, *, by_output: bool) -> Array:
        compared = scores if by_output else scores.reshape(-1, 1)
        gone = round(len(compared) * self.ratio)
        smallest = np.argsort(compared, axis=0, kind="stable")[:gone]
        kept = np.ones(compared.shape, bool)
        np.put_along_axis(kept, smallest, False, axis=0)
        return kept.reshape(scores.shape)

    def index_bits(self, count: int) -> int:
        """A bit for each weight."""
        return count

    def __str__(self) -> str:
        return f"{self.ratio:.0%} unstructured"


def parse_pattern(text: str) -> NofM:
    """``N:M`` as a pattern; raises InputError."""
    kept, colon, of = text.partition(":")
    if colon and kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of):
        return NofM(int(kept), int(of))
    raise InputError(f"pattern {text!r}: must be N:M with N below M, such as 2:4.")


def reading_order(layer: LinearLayer) -> Array:
    """The features of ``layer`` with the kernel's places first and the channels within them."""
    features = layer.shape[1]
    places = int(np.prod(layer.kernel))
    return np.arange(features).reshape(-1, places).T.reshape(-1)
