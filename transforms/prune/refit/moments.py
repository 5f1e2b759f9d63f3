"""Normal equations of a least-squares fit, summed batch by batch in double precision.

Their size depends on the number of features and targets only, never on that of the samples. The
products of one batch are made in the precision of its rows, around its means: what a large mean
would cost is not lost, and single precision takes half the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array

_ROUNDING = 1e-10
_SMALLEST = 1e-24


@dataclass(frozen=True)
class Moments:
    """Sums over rows x (features) and r (targets), around zero.

    ``gram`` [features, features] of x x', ``cross`` [features, targets] of x r', ``x`` and ``r``
    of themselves, ``squares`` of r r summed over all targets, ``count`` of 1.
    """

    gram: Array
    cross: Array
    x: Array
    r: Array
    squares: float
    count: int

    @classmethod
    def of(cls, features: Array, targets: Array) -> Moments:
        """The moments of ``features`` [rows, features] and ``targets`` [rows, targets]."""
        count = len(features)
        x, x_mean = _centred(features)
        r, r_mean = _centred(targets)
        spread = np.einsum("ij,ij->", r, r, dtype=np.float64)
        return cls(
            gram=(x.T @ x).astype(np.float64) + count * np.outer(x_mean, x_mean),
            cross=(x.T @ r).astype(np.float64) + count * np.outer(x_mean, r_mean),
            x=count * x_mean,
            r=count * r_mean,
            squares=float(spread + count * (r_mean @ r_mean)),
            count=count,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.x + other.x,
            self.r + other.r,
            self.squares + other.squares,
            self.count + other.count,
        )

    def variance(self) -> float:
        """The variance of a row of targets, summed over them."""
        mean = self.r / self.count
        return max(self.squares / self.count - float(mean @ mean), _SMALLEST)

    def covariance(self, ridge: float) -> tuple[Array, Array]:
        """(gram, cross) of one row around the means: a fit with a free constant needs no other.

        ``ridge`` is added to the diagonal of gram, as a share of the features' mean variance.
        Features that never change leave nothing but rounding, which is why a little of their
        mean square comes on top: gram is positive definite for any samples.
        """
        mean = self.x / self.count
        raw = self.gram / self.count
        gram = raw - np.outer(mean, mean)
        spread = max(float(np.trace(gram)), 0.0) + _ROUNDING / ridge * float(np.trace(raw))
        gram[np.diag_indices_from(gram)] += ridge * max(spread / len(gram), _SMALLEST)
        return gram, self.cross / self.count - np.outer(mean, self.r / self.count)

    def error(self, change: Array, constant: Array) -> float:
        """The mean over rows of |x' change + constant - r|^2, summed over targets."""
        total = (
            self.squares
            + np.einsum("ij,ij->", change, self.gram @ change)
            - 2 * np.einsum("ij,ij->", change, self.cross)
            + 2 * constant @ (self.x @ change - self.r)
            + self.count * (constant @ constant)
        )
        return max(0.0, float(total)) / self.count


def _centred(rows: Array) -> tuple[Array, Array]:
    """``rows`` less a mean of each column in their precision, and that mean in double precision.

    That the mean which is taken off is rounded changes sums of products by its rounding squared.
    """
    precision = np.result_type(rows.dtype, np.float32)
    mean = rows.mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(rows.shape[1])
    return rows.astype(precision, copy=False) - mean.astype(precision), mean
