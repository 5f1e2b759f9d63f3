"""perf_analyzer's profile export: every request with its times, as JSON.

Source: its documentation of ``--profile-export-file`` (schema ``profile-export``). All times are
nanoseconds since 1970; ours come from the monotonic clock, placed once. Our own fields are added
to ``experiment`` and to the top. It is written request by request, so that a long load needs no
second copy of itself in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from trimton.core.files import replacing
from trimton.perf.load.request_log import LoggedWindow
from trimton.perf.results import LoadWindow

_SERVICE_KIND = "triton"


def write_profile_export(
    path: Path, windows: Sequence[LoggedWindow], *, epoch_offset_ns: int, version: str
) -> None:
    """Write ``windows`` to ``path``, one experiment for each level.

    ``epoch_offset_ns`` turns monotonic into wall-clock time; ``version`` is Trimton's. Raises
    InputError or InfrastructureError when the disk refuses.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"experiments":[')
        levels = groupby(sorted(windows, key=_level), key=_level)
        for index, (_, members) in enumerate(levels):
            file.write("," if index else "")
            _write_experiment(file, list(members), epoch_offset_ns)
        ending = {"version": version, "service_kind": _SERVICE_KIND, "endpoint": ""}
        file.write(f"],{json.dumps(ending)[1:]}")


def _level(logged: LoggedWindow) -> tuple[int, str, float]:
    window = logged.window
    return window.concurrency, window.arrivals or "", window.rate_rps or 0.0


def _write_experiment(file: TextIO, members: Sequence[LoggedWindow], offset_ns: int) -> None:
    file.write(f'{{"experiment":{json.dumps(_experiment(members[0].window))},"requests":[')
    for index, request in enumerate(_requests(members, offset_ns)):
        file.write("," if index else "")
        file.write(request)
    file.write(f'],"window_boundaries":{json.dumps(_boundaries(members, offset_ns))}}}')


def _experiment(window: LoadWindow) -> dict[str, Any]:
    if window.arrivals is None:
        return {"mode": "concurrency", "value": window.concurrency}
    return {"mode": "request_rate", "value": window.rate_rps, "arrivals": window.arrivals}


def _requests(members: Sequence[LoggedWindow], offset_ns: int) -> Iterator[str]:
    """Each request as JSON, in the order of their starts."""
    for logged in members:
        order = logged.started_ns.argsort(kind="stable")
        starts = (logged.started_ns[order] + offset_ns).tolist()
        ends = (logged.finished_ns[order] + offset_ns).tolist()
        for start, end in zip(starts, ends, strict=True):
            yield (
                f'{{"timestamp":{start},"request_inputs":{{}},'
                f'"response_timestamps":[{end}],"response_outputs":[]}}'
            )


def _boundaries(members: Sequence[LoggedWindow], offset_ns: int) -> list[int]:
    """Where each window begins, and where the last ends."""
    begun = [int(m.started_ns.min()) + offset_ns for m in members if len(m.started_ns)]
    ended = [int(m.finished_ns.max()) + offset_ns for m in members if len(m.finished_ns)]
    return sorted(begun) + ([max(ended)] if ended else [])
