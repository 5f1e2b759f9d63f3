"""Normal equations of many small least-squares fits, summed batch by batch in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array

_ROUNDING = 1e-10
_SMALLEST = 1e-24


@dataclass(frozen=True)
class GroupMoments:
    """Sums over rows x (features) and r (errors) of each group.

    ``gram`` [groups, features, features], ``cross`` [groups, features, outputs], ``x`` and ``r``
    of themselves, ``squares`` [groups] of r r, ``count`` of 1.
    """

    gram: Array
    cross: Array
    x: Array
    r: Array
    squares: Array
    count: int

    @classmethod
    def of(cls, x: Array, r: Array) -> GroupMoments:
        """Of ``x`` [groups, rows, features] and ``r`` [groups, rows, outputs]."""
        turned = x.transpose(0, 2, 1)
        squares = np.einsum("gij,gij->g", r, r)
        return cls(turned @ x, turned @ r, x.sum(axis=1), r.sum(axis=1), squares, x.shape[1])

    def __add__(self, other: GroupMoments) -> GroupMoments:
        return GroupMoments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.x + other.x,
            self.r + other.r,
            self.squares + other.squares,
            self.count + other.count,
        )

    def solve(self, ridge: Array) -> tuple[Array, Array]:
        """Change [groups, features, outputs] and constant [groups, outputs] of the fit.

        ``ridge`` [groups] is a share of a group's mean variance.
        """
        mean_x, mean_r = self.x / self.count, self.r / self.count
        gram = self.gram / self.count - mean_x[:, :, None] * mean_x[:, None, :]
        cross = self.cross / self.count - mean_x[:, :, None] * mean_r[:, None, :]
        features = gram.shape[1]
        spread = np.trace(gram, axis1=1, axis2=2) / features
        raw = np.trace(self.gram, axis1=1, axis2=2) / (self.count * features)
        weight = np.maximum(ridge * np.maximum(spread, 0) + _ROUNDING * raw, _SMALLEST)
        change = np.linalg.solve(gram + weight[:, None, None] * np.eye(features), cross)
        return change, mean_r - np.einsum("gf,gfo->go", mean_x, change)

    def errors(self, change: Array, constant: Array) -> Array:
        """The mean over rows of |x' change + constant - r|^2 of each group, [groups]."""
        total = (
            self.squares
            + np.einsum("gfo,gfo->g", change, self.gram @ change)
            - 2 * np.einsum("gfo,gfo->g", change, self.cross)
            + 2 * np.einsum("go,go->g", constant, np.einsum("gf,gfo->go", self.x, change) - self.r)
            + self.count * np.einsum("go,go->g", constant, constant)
        )
        errors: Array = np.maximum(total, 0.0) / self.count
        return errors
