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

_STEPS = 24
# What the first layer reads in one step, as numbers: places times features.
_READ_AT_ONCE = 2**22
# The second layer is fitted anew, and the weights are judged, every so many steps.
_STEPS_AT_ONCE = 4
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

    def made(self, weights: Weights, pool: Pool) -> tuple[Array, Array]:
        """What the second layer reads [rows, features] and makes [rows, outputs]."""
        first = self.first.rows(pool.read) @ weights.first + weights.first_constant
        inner = self.second.rows(self.between(self.first.values(first)))
        return inner, inner @ weights.second + weights.second_constant

    def error(self, weights: Weights, pool: Pool) -> float:
        """The mean squared error of the goal, summed over the outputs."""
        missing = self.missing(self.made(weights, pool)[1], pool)
        return float(np.einsum("ij,ij->", missing, missing, dtype=np.float64)) / len(missing)

    def missing(self, made: Array, pool: Pool) -> Array:
        """What is missing from ``made`` [rows, outputs] by the second layer."""
        total = made + self.second.value_rows(pool.rest)
        missing: Array = pool.limits.goal(self.second.value_rows(pool.wanted), total) - total
        return missing


def refit_jointly(pair: Pair, weights: Weights, fitted: Pool, judging: Pool | None) -> Weights:
    """Weights that come closer to the goal than ``weights``; these where there are none.

    Weights follow ``fitted`` and are judged on ``judging``, or on what they follow if there is
    none: those that did best on the way are given.
    """
    rng = np.random.default_rng(0)
    judge = _drawn(pair, fitted if judging is None else judging, rng, 2)
    best, least = weights, pair.error(weights, judge)
    read = _with_one(pair.first.rows(_drawn(pair, fitted, rng, 4).read))
    whitening = cho_factor(_damped(read.T @ read / np.float32(len(read)), _RIDGE))
    last: _Direction | None = None
    for number in range(_STEPS):
        part = _drawn(pair, fitted, rng)
        if number % _STEPS_AT_ONCE == 0:
            weights = _second_fitted(pair, weights, _drawn(pair, fitted, rng, 2))
            error = pair.error(weights, judge)
            if error < least:
                best, least = weights, error
        view = _linearised(pair, weights, part)
        last = _direction(view, cho_solve(whitening, view.pull), last)
        weights = _stepped(pair, weights, view, last.along)
    weights = _second_fitted(pair, weights, _drawn(pair, fitted, rng, 2))
    return weights if pair.error(weights, judge) < least else best


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


def _drawn(pair: Pair, pool: Pool, rng: np.random.Generator, parts: int = 1) -> Pool:
    """Samples of ``pool`` at random, as many as one step sees, times ``parts``."""
    size = pair.first.rows(pool.read[:1]).size
    count = min(len(pool.read), parts * max(_LEAST_SAMPLES, _READ_AT_ONCE // size))
    return pool.part(np.sort(rng.choice(len(pool.read), count, replace=False)))


def _second_fitted(pair: Pair, weights: Weights, part: Pool) -> Weights:
    """``weights`` with the second layer fitted to ``part``."""
    inner, out = pair.made(weights, part)
    fit = ridge_fit(Moments.of(inner, pair.missing(out, part)), _RIDGE)
    change, constant = (array.astype(out.dtype) for array in fit)
    return replace(
        weights,
        second=weights.second + change,
        second_constant=weights.second_constant + constant,
    )


def _linearised(pair: Pair, weights: Weights, part: Pool) -> _View:
    read = pair.first.rows(part.read)
    made = pair.first.values(read @ weights.first + weights.first_constant)
    slope = pair.between.slope(made)
    out = pair.second.rows(pair.between(made)) @ weights.second + weights.second_constant
    error = pair.missing(out, part)
    back = pair.second.adjoint(error @ weights.second.T) * slope
    read = _with_one(read)
    slopes = pair.first.value_rows(slope)
    by_channel = pair.second.by_channel(weights.second)
    return _View(
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


def _with_one(rows: Array) -> Array:
    """``rows`` with a one at the end of each, for the constant."""
    return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)


def _damped(matrix: Array, share: float) -> Array:
    """``matrix`` in double precision, with a share of its mean diagonal added."""
    made = matrix.astype(np.float64)
    made[np.diag_indices_from(made)] += max(share * float(np.trace(made)) / len(made), _SMALLEST)
    return made
