"""What measured levels say about their own worth, in as few lines as it takes."""

from __future__ import annotations

from collections.abc import Sequence

from trimton.perf.results import LevelSummary
from trimton.perf.stats.levels import spread_notes


def load_name(level: LevelSummary) -> str:
    """The load of a level in words."""
    if level.arrivals is None:
        return f"concurrency {level.concurrency}"
    return f"{level.rate_rps:g} requests/s"


def notes_of(levels: Sequence[LevelSummary]) -> list[str]:
    """What the levels say about their own worth: one line for each thing that is to be said."""
    by_variant: dict[str, list[LevelSummary]] = {}
    for level in levels:
        by_variant.setdefault(level.variant, []).append(level)
    return [
        f"{variant} {line}"
        for variant, own in by_variant.items()
        for line in (*_spread_line(own), *_shared_notes(own))
    ]


def _spread_line(levels: Sequence[LevelSummary]) -> list[str]:
    """One line for all levels of a variant whose rounds do not agree."""
    unstable = [level for level in levels if level.spread]
    if not unstable:
        return []
    places = [
        f"{load_name(level)} ({', '.join(f'{n} by {v:.0%}' for n, v in level.spread.items())})"
        for level in unstable
    ]
    limit = unstable[0].stability_limit or 0.0
    return [f"has rounds that differ by more than {limit:.0%}: at {', '.join(places)}"]


def _shared_notes(levels: Sequence[LevelSummary]) -> list[str]:
    """All other notes; what several levels say stands in one line."""
    said: dict[str, list[str]] = {}
    for level in levels:
        known = spread_notes(level.spread, level.stability_limit or 0.0)
        for note in level.notes:
            if note not in known:
                said.setdefault(note, []).append(load_name(level))
    return [f"at {', '.join(places)}: {note}" for note, places in said.items()]
