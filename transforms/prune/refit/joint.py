"""Joint refit of two layers with an elementwise function f between them.

Y = rows(f(X W + b)) V + c shall come close to a goal. Choosing channels and refitting V alone
leaves the features as they were; here W learns to make better ones. The problem is a separable
one (Golub and Pereyra, 1973): for given W, the best V is a linear least-squares fit. W follows by
Gauss-Newton steps, for which f is replaced by its tangent. The normal matrix of a step is too
large to be solved; the Kronecker product of what it factorises into on average (Martens and
Grosse, 2015) preconditions conjugate gradients instead, and the length of a step is the exact
minimum of the linearised error. Each step sees other samples. No labels, no loss of the whole
network and no learning rate take part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.refit.between import Between
from trimton.transforms.prune.refit.linear_map import LinearMap
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.saturation import Limits
from trimton.transforms.prune.refit.solve import ridge_fit

_STEPS = 20
# Each step sees about this many rows for each feature of the first layer.
_ROWS_PER_FEATURE = 64
_RIDGE = 1e-3
_DAMPING = 1e-2
_LEAST_SAMPLES = 16
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Pool:
    """Samples of what the first layer ``read``s, [samples, ...].

    ``wanted`` is the value that the second layer contributes to, ``rest`` what others add to it;
    ``limits`` are those of what reads it.
    """

    read: Array
    wanted: Array
    rest: Array
    limits: Limits

    def part(self, chosen: Array) -> Pool:
        """These samples of it."""
        return replace(
            self, read=self.read[chosen], wanted=self.wanted[chosen], rest=self.rest[chosen]
        )


@dataclass(frozen=True)
class Weights:
    """W [features, channels] and b of the first layer, V [features, outputs], c of the second."""

    first: Array
    first_constant: Array
    second: Array
    second_constant: Array


@dataclass(frozen=True)
class Pair:
    """Two layers as maps, and the function ``between`` them."""

    first: LinearMap
    second: LinearMap
    between: Between

    def error(self, weights: Weights, pool: Pool) -> float:
        """The mean squared error of the goal, summed over the outputs."""
        made = self.first.rows(pool.read) @ weights.first + weights.first_constant
        read = self.second.rows(self.between(self.first.values(made)))
        error = self.missing(read @ weights.second + weights.second_constant, pool)
        return float(np.einsum("ij,ij->", error, error, dtype=np.float64)) / len(error)

    def missing(self, made: Array, pool: Pool) -> Array:
        """What is missing from ``made`` [rows, outputs] by the second layer."""
        total = made + self.second.value_rows(pool.rest)
        missing: Array = pool.limits.goal(self.second.value_rows(pool.wanted), total) - total
        return missing


def refit_jointly(pair: Pair, weights: Weights, pool: Pool) -> Weights:
    """Weights that come closer to the goal of ``pool``, from ``weights`` on."""
    rng = np.random.default_rng(0)
    factor: tuple[Array, bool] | None = None
    last: _Direction | None = None
    for _ in range(_STEPS):
        part = pool.part(_drawn(pair, pool, weights, rng))
        weights, view = _linearised(pair, weights, part)
        if factor is None:
            factor = cho_factor(_damped(view.read.T @ view.read / len(view.read), _RIDGE))
        last = _direction(view, cho_solve(factor, view.pull), last)
        weights = _stepped(pair, weights, view, last.along)
    return weights


@dataclass(frozen=True)
class _View:
    """One step's problem, linearised at its weights.

    ``read`` [rows, features and a one] of the first layer, the ``slope`` of f, the ``error`` that
    is left [rows, outputs], ``pull`` [features and one, channels], the transposed Jacobian times
    the error, and ``metric`` [channels, channels], how much a change of what the first layer makes
    weighs in the error.
    """

    read: Array
    slope: Array
    error: Array
    pull: Array
    metric: Array


@dataclass(frozen=True)
class _Direction:
    """A conjugate direction ``along`` which weights move, with what the next one needs."""

    along: Array
    pull: Array
    preconditioned: Array


def _drawn(pair: Pair, pool: Pool, weights: Weights, rng: np.random.Generator) -> Array:
    """The samples of one step."""
    places = max(1, len(pair.first.rows(pool.read[:1])))
    wanted = -(-_ROWS_PER_FEATURE * len(weights.first) // places)
    count = len(pool.read)
    return np.sort(rng.choice(count, min(count, max(_LEAST_SAMPLES, wanted)), replace=False))


def _linearised(pair: Pair, weights: Weights, part: Pool) -> tuple[Weights, _View]:
    """``weights`` with the second layer fitted to ``part``, and the problem at that point."""
    read = pair.first.rows(part.read)
    made = pair.first.values(read @ weights.first + weights.first_constant)
    slope = pair.between.slope(made)
    inner = pair.second.rows(pair.between(made))
    out = inner @ weights.second + weights.second_constant
    fit = ridge_fit(Moments.of(inner, pair.missing(out, part)), _RIDGE)
    change, constant = (array.astype(out.dtype) for array in fit)
    second = weights.second + change
    weights = replace(weights, second=second, second_constant=weights.second_constant + constant)
    error = pair.missing(out + inner @ change + constant, part)
    back = pair.second.adjoint(error @ second.T) * slope
    read = np.concatenate([read, np.ones((len(read), 1), read.dtype)], axis=1)
    slopes = pair.first.value_rows(slope)
    by_channel = second.reshape(slopes.shape[1], -1)
    return weights, _View(
        read=read,
        slope=slope,
        error=error,
        pull=read.T @ pair.first.value_rows(back) / np.float32(len(read)),
        metric=(slopes.T @ slopes / np.float32(len(slopes))) * (by_channel @ by_channel.T),
    )


def _direction(view: _View, whitened: Array, last: _Direction | None) -> _Direction:
    """Polak and Ribiere's rule, which forgets a direction that has become useless."""
    metric = cho_factor(_damped(view.metric, _DAMPING))
    new: Array = cho_solve(metric, whitened.T).T
    along = new
    if last is not None:
        gain = np.vdot(new, view.pull - last.pull) / max(
            float(np.vdot(last.preconditioned, last.pull)), _SMALLEST
        )
        along = new + max(0.0, float(gain)) * last.along
    return _Direction(along, view.pull, new)


def _stepped(pair: Pair, weights: Weights, view: _View, along: Array) -> Weights:
    """The step along a direction that leaves the least linearised error."""
    along = along.astype(view.read.dtype)
    moved = pair.first.values(view.read @ along) * view.slope
    effect = pair.second.rows(moved) @ weights.second
    length = np.vdot(effect, view.error) / max(float(np.vdot(effect, effect)), _SMALLEST)
    step = along * view.read.dtype.type(length)
    return replace(
        weights,
        first=weights.first + step[:-1],
        first_constant=weights.first_constant + step[-1],
    )


def _damped(matrix: Array, share: float) -> Array:
    """``matrix`` in double precision, with a share of its mean diagonal added."""
    made = matrix.astype(np.float64)
    made[np.diag_indices_from(made)] += max(share * float(np.trace(made)) / len(made), _SMALLEST)
    return made
