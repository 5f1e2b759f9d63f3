"""Peak search: the highest rate at which a latency objective still holds.

The rate doubles until the objective breaks (or halves until it holds), then the bracket is bisected
until its ends are close and both are confirmed. Each trial lasts only until LoadGen's early-
stopping bound decides, but long enough for a queue to show: a rate a little above what the server
can do lets the latency grow slowly, so the closer the ends, the longer a trial must last. What held
in a short trial is tried again at the length that the final precision needs before it is believed,
and so is what broke: a disturbance of the machine must not close the bracket from above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from trimton.core.errors import InfrastructureError
from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.early_stopping import Looks, limit_holds
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.load.span import Progress, Span
from trimton.perf.measure.histogram import requests_needed

_GROWTH = 2.0
# Once more upwards, after the upper end turned out to hold.
_GROWTH_AGAIN = 1.1
_TRIAL_S_MIN = 0.5
# Of the time after which the latency at the far end of the bracket is sure to exceed the limit.
_SETTLING = 6.0
# A trial that is undecided after so long, or so many times the fewest requests, is decided as it
# stands.
_TRIAL_S_MAX = 60.0
_PATIENCE = 6
_GROSS = 10
# Where so few requests are under way on average, they do not wait for each other: a limit that
# breaks there breaks at every rate.
_ALONE = 0.05
_FIRST_LOOK = 5


@dataclass(frozen=True)
class Objective:
    """``percentile`` (a share) of the requests within ``latency_ms``, at most ``error_share`` fail.

    Latency counts from the scheduled instant.
    """

    latency_ms: float
    percentile: float = 0.99
    error_share: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One rate that was tried: how long, how many requests, how many broke the limits.

    ``certain`` is False where the bound could not decide in time; then the observed shares do.
    """

    rate_rps: float
    duration_s: float
    requests: int
    over_limit: int
    errors: int
    mean_ms: float
    percentile_ms: float | None
    holds: bool
    certain: bool

    @property
    def under_way(self) -> float:
        """The mean number of requests under way, by Little's law."""
        return self.rate_rps * self.mean_ms / 1000


@dataclass(frozen=True)
class Peak:
    """The highest rate that held and the lowest that did not; None where there is none."""

    rate_rps: float | None
    broken_rps: float | None
    trials: tuple[Trial, ...]


# Tries a rate for at least so many seconds.
Try = Callable[[float, float], Trial]


def search_peak(
    attempt: Try,
    objective: Objective,
    *,
    start_rps: float,
    rate_max_rps: float,
    precision: float = 0.03,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Peak:
    """Search from ``start_rps`` until the bracket's ends differ by less than ``precision``.

    The highest rate tried is ``rate_max_rps``; where that holds, nothing is known to break.
    """
    trials: list[Trial] = []

    def tried(rate_rps: float, ratio: float) -> bool:
        shortest_s = max(_TRIAL_S_MIN, _SETTLING * objective.latency_ms / 1000 / (ratio - 1))
        trials.append(attempt(rate_rps, shortest_s))
        on_trial(trials[-1])
        return trials[-1].holds

    def holds(*trial: float) -> bool:
        # A break is confirmed: one disturbance must not decide. If the second trial disagrees,
        # a third settles it.
        return tried(*trial) or (tried(*trial) and tried(*trial))

    def broke_by_chance(*trial: float) -> bool:
        return tried(*trial) and tried(*trial)

    held: list[float] = []  # ascending
    broken: float | None = None
    growth = _GROWTH
    rate_rps = min(start_rps, rate_max_rps)
    while True:
        ratio = broken / held[-1] if held and broken else growth
        if holds(rate_rps, ratio):
            held.append(rate_rps)
        else:
            broken = rate_rps
        while held and _is_close(held[-1], broken, precision, rate_max_rps):
            if not holds(held[-1], 1 + precision):
                broken = held.pop()
            elif broken is None or not broke_by_chance(broken, 1 + precision):
                return Peak(held[-1], broken, tuple(trials))
            else:
                held.append(broken)
                broken, growth = None, _GROWTH_AGAIN
        if not held:
            if trials[-1].under_way < _ALONE:
                return Peak(None, broken, tuple(trials))
            rate_rps = min(rate_rps, broken or rate_rps) / _GROWTH
        elif broken is None:
            rate_rps = min(held[-1] * growth, rate_max_rps)
            growth = min(growth**2, _GROWTH)
        else:
            rate_rps = sqrt(held[-1] * broken)


def _is_close(
    held_rps: float, broken_rps: float | None, precision: float, rate_max_rps: float
) -> bool:
    if broken_rps is None:
        return held_rps == rate_max_rps
    return broken_rps / held_rps - 1 <= precision


class Verdict:
    """Says when the requests so far decide whether the objective holds."""

    def __init__(self, objective: Objective, shortest_s: float) -> None:
        self._objective = objective
        self._shortest_ns = shortest_s * 1e9
        self._looks = Looks(_FIRST_LOOK)

    def enough(self, seen: Progress) -> bool:
        """Before the shortest time only a gross break is certain: requests come in bursts."""
        if not self._looks.is_due(seen.outcomes):
            return False
        if seen.elapsed_ns >= self._shortest_ns:
            return self.holds(seen) is not None
        share = min(_GROSS * (1 - self._objective.percentile), 0.5)
        return limit_holds(seen.over_limit, seen.requests, share) is False or (
            seen.failures > _GROSS * self._objective.error_share * seen.outcomes
        )

    def holds(self, seen: Progress) -> bool | None:
        """Whether the objective holds; None where that cannot be told yet."""
        latency = limit_holds(seen.over_limit, seen.requests, 1 - self._objective.percentile)
        errors = limit_holds(seen.failures, seen.outcomes, self._objective.error_share)
        if latency is False or errors is False:
            return False
        return True if latency and errors else None

    def trial(self, rate_rps: float, span: Span) -> Trial:
        """The closed ``span``, which counted by the objective's limit, as the trial of a rate."""
        holds = self.holds(span.progress)
        observed = (
            span.over_limit <= (1 - self._objective.percentile) * span.requests
            and span.failures <= self._objective.error_share * span.outcomes
        )
        return Trial(
            rate_rps=rate_rps,
            duration_s=span.duration_s,
            requests=span.requests,
            over_limit=span.over_limit,
            errors=span.failures,
            mean_ms=span.mean_latency_ms,
            percentile_ms=span.histogram.percentile_ms(self._objective.percentile),
            holds=observed if holds is None else holds,
            certain=holds is not None,
        )


def rate_trials(arm: ServedArm, objective: Objective, *, warmup_s: float, seed: int) -> Try:
    """Trials on a real server, with Poisson arrivals."""
    requests_max = _PATIENCE * requests_needed(objective.percentile)
    tried = 0

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        nonlocal tried
        verdict = Verdict(objective, shortest_s)
        longest_s = max(2 * shortest_s, min(requests_max / rate_rps, _TRIAL_S_MAX))
        load = Load(
            0,
            tried,
            longest_s,
            warmup_s,
            PoissonRate(rate_rps),
            seed=seed,
            latency_limit_ms=objective.latency_ms,
        )
        tally, _ = arm.run(load, enough=verdict.enough)
        tried += 1
        assert isinstance(tally, Span), "a schedule is counted by a span"
        return verdict.trial(rate_rps, tally)

    return attempt


def starting_rate(arm: ServedArm, window_s: float = 0.5) -> float:
    """A rate to start from: what one request after the other reaches.

    Raises InfrastructureError if nothing is answered.
    """
    tally, _ = arm.run(Load(1, 0, window_s, 0.1))
    if not tally.requests:
        raise InfrastructureError(
            f"no request for {arm.variant!r} succeeded ({tally.error_example or 'no answer'}); "
            "look into the server's log."
        )
    return tally.requests / tally.duration_s
