"""The report for the terminal: models, speed, checks, and the verdict last, where the eye is."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimton.perf.report.cells import MODEL_COLUMNS, SPEED_COLUMNS, Cell, ModelColumn, SpeedColumn
from trimton.perf.report.document import RunDocument
from trimton.perf.report.facts import server_text
from trimton.perf.report.headline import SIGNS, headline, other_verdicts
from trimton.perf.report.rows import (
    CheckGroup,
    SpeedRow,
    check_groups,
    filled,
    loads,
    notes,
    speed_rows,
    variant_rows,
)

_MODEL_KEYS = ("accuracy", "agreement", "sqnr", "size", "memory")
_SPEED_KEYS = ("throughput", "p50", "p95", "p99")

_STYLES = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "better": "green",
    "worse": "red",
    "equivalent": "",
}


def render_table(document: RunDocument) -> list[RenderableType]:
    """Parts to print one after the other; they fit 100 columns for names of usual length.

    Names of the document are never read as Rich markup.
    """
    verdict = headline(document)
    parts: list[RenderableType] = [_models(document)]
    speeds = speed_rows(document)
    if speeds:
        parts.append(_speed(document, speeds))
    groups = check_groups(document)
    parts.extend(_checks(group) for group in groups if group.is_candidate)
    parts.extend(Text(other) for other in other_verdicts(document))
    parts.extend(Text(f"note: {note}", style="dim") for note in notes(document))
    parts.append(
        Text.assemble(
            (f"{SIGNS[verdict.outcome]} {verdict.outcome}", _STYLES[verdict.outcome]),
            f": {verdict.sentence}",
        )
    )
    return parts


def _models(document: RunDocument) -> Table:
    rows = variant_rows(document)
    columns = [c for c in MODEL_COLUMNS if c.key in _MODEL_KEYS and filled(rows, c.key)]
    server = server_text(document)
    table = _table(f"{document.model} on {server}" if server else document.model, columns)
    for row in rows:
        table.add_row(Text(row.name), *(_cell(row.cells[column.key]) for column in columns))
    return table


def _speed(document: RunDocument, rows: Sequence[SpeedRow]) -> Table:
    columns = [c for c in SPEED_COLUMNS if c.key in _SPEED_KEYS and filled(rows, c.key)]
    table = _table("Speed, with 95 % intervals and ratios to the baseline", columns)
    for load in loads(document):
        table.add_row(Text(load.text, style="bold"))
        for row in rows:
            if row.load == load:
                table.add_row(Text(row.name), *(_cell(row.cells[column.key]) for column in columns))
        table.add_section()
    return table


def _checks(group: CheckGroup) -> Table:
    title = Text(f"Checks of {group.variant}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("Metric", overflow="fold")
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Observed", justify="right")
    table.add_column("Asked", justify="right")
    table.add_column("Why")
    for check in group.checks:
        table.add_row(
            Text(check.metric),
            Text(f"{SIGNS[check.outcome]} {check.outcome}", style=_STYLES[check.outcome]),
            Text(f"{check.observed}\n{check.interval}".rstrip()),
            Text(check.asked),
            Text(check.why),
        )
    return table


def _table(title: str, columns: Sequence[ModelColumn] | Sequence[SpeedColumn]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("Variant", overflow="fold")
    for column in columns:
        table.add_column(f"{column.title}\n{column.unit}".rstrip(), justify="right")
    return table


def _cell(cell: Cell) -> Text:
    text = Text(f"{cell.text} {cell.interval}".strip())
    if cell.is_missing and cell.note:
        text.append(f"\n{cell.note}", style="dim")
    if cell.ratio:
        text.append(f"\n{cell.ratio}")
    if cell.outcome:
        text.append(f" {cell.outcome}", style=_STYLES[cell.outcome])
    return text
