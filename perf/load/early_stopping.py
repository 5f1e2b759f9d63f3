"""When enough requests have been seen to know whether a limit holds.

LoadGen's early stopping (MLPerf inference, ``early_stopping.cc``) in both directions: of n
requests t broke the limit, and at most the share d may. The limit holds if so few breaks would
be unlikely at d, ``P[Binomial(n, d) <= t] <= 1 - c``; it is broken if so many would be,
``P[Binomial(n, d) >= t] <= 1 - c``. In between it takes more requests to tell.
"""

from __future__ import annotations

from scipy.special import bdtr, bdtrc

from trimton.perf.measure.histogram import EARLY_STOPPING_CONFIDENCE

# The question is asked again only after this much growth: every look is a chance to err.
_GROWTH_BETWEEN_LOOKS = 1.25


def limit_holds(
    broken: int, total: int, share: float, confidence: float = EARLY_STOPPING_CONFIDENCE
) -> bool | None:
    """Whether at most ``share`` of requests break the limit, from ``broken`` of ``total``.

    None where it takes more requests to tell. With a share of 0 one break settles it, and
    without a break the limit counts as held.
    """
    if share == 0:
        return broken == 0
    doubt = 1 - confidence
    if bdtr(broken, total, share) <= doubt:
        return True
    if broken and bdtrc(broken - 1, total, share) <= doubt:
        return False
    return None


class Looks:
    """Spaces the looks at a growing number of requests."""

    def __init__(self, first: int) -> None:
        self._next: float = first

    def is_due(self, total: int) -> bool:
        """True when ``total`` has grown enough since the last look."""
        if total < self._next:
            return False
        self._next = total * _GROWTH_BETWEEN_LOOKS
        return True
