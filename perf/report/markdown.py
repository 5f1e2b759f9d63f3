"""The report as Markdown, short enough for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from trimton.perf.report.cells import MODEL_COLUMNS, SPEED_COLUMNS, Cell, ModelColumn, SpeedColumn
from trimton.perf.report.document import RunDocument
from trimton.perf.report.facts import server_text
from trimton.perf.report.headline import SIGNS, headline, other_verdicts
from trimton.perf.report.rows import (
    CheckGroup,
    SpeedRow,
    VariantRow,
    check_groups,
    filled,
    loads,
    notes,
    speed_rows,
    variant_rows,
)

_MODEL_KEYS = ("accuracy", "agreement", "sqnr", "size", "macs", "memory")
_SPEED_KEYS = ("throughput", "p50", "p95", "p99", "energy", "errors")

# An underscore inside a word is plain text in GitHub's Markdown, at its edge it is emphasis.
# A bracket matters only where it closes the text of a link.
_SPECIAL = re.compile(r"[\\|`*~<>&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])")


def render_markdown(document: RunDocument) -> str:
    """Verdict, checks, models, speed at each load, and notes, in GitHub's Markdown."""
    return "\n".join(_lines(document)) + "\n"


def escaped(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would take as its own."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _lines(document: RunDocument) -> Iterator[str]:
    verdict = headline(document)
    yield f"# {SIGNS[verdict.outcome]} {verdict.outcome}: {escaped(document.title)}"
    yield ""
    yield f"{escaped(verdict.sentence)} Exit code {verdict.exit_code}."
    for group in check_groups(document):
        if group.is_candidate:
            yield from _section("Checks", _checks(group))
    if others := other_verdicts(document):
        yield from ("", *(f"- {escaped(other)}" for other in others))
    models = variant_rows(document)
    known = [c for c in MODEL_COLUMNS if c.key in _MODEL_KEYS and filled(models, c.key)]
    yield from _section("Models", _figures(known, models))
    speeds = speed_rows(document)
    measured = [c for c in SPEED_COLUMNS if c.key in _SPEED_KEYS and filled(speeds, c.key)]
    for load in loads(document):
        at_load = [row for row in speeds if row.load == load]
        yield from _section(f"Speed at {load.text}", _figures(measured, at_load))
    yield from _section("Notes", [f"- {escaped(note)}" for note in _closing(document)])


def _closing(document: RunDocument) -> list[str]:
    server = server_text(document)
    return [
        *notes(document),
        "Brackets are 95 % intervals; × is the ratio to the baseline.",
        f"Model {document.model}, run {document.run_directory}, {document.created}"
        + (f", server {server}." if server else "."),
    ]


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield from lines


def _checks(group: CheckGroup) -> Iterator[str]:
    rows = [
        [
            escaped(check.metric),
            f"{SIGNS[check.outcome]} {check.outcome}",
            escaped(f"{check.observed} {check.interval}".strip()),
            escaped(check.asked),
            escaped(check.why),
        ]
        for check in group.checks
    ]
    return _table(["Metric", "Outcome", "Observed", "Asked", "Why"], rows, right=(2, 3))


def _figures(
    columns: Sequence[ModelColumn] | Sequence[SpeedColumn],
    rows: Sequence[VariantRow] | Sequence[SpeedRow],
) -> Iterator[str]:
    head = [f"{c.title}, {c.unit}" if c.unit else c.title for c in columns]
    body = [[escaped(row.name), *(_cell(row.cells[c.key]) for c in columns)] for row in rows]
    return _table(["Variant", *head], body, right=range(1, len(head) + 1))


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int]
) -> Iterator[str]:
    yield _row(head)
    yield _row(["---:" if place in right else "---" for place in range(len(head))])
    yield from (_row(row) for row in rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    figure = f"{cell.text} {cell.interval}".strip()
    if cell.is_missing and cell.note:
        figure += f" ({cell.note})"
    against = f"{cell.ratio} {cell.outcome or ''}".strip()
    return f"{figure} · {against}" if against else figure
