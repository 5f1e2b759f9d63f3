"""Markdown for CI summaries and tables for the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from trimton.perf.report.document import RunDocument
from trimton.perf.report.html import render_html
from trimton.perf.report.markdown import escaped, render_markdown
from trimton.perf.report.rows import speed_rows
from trimton.perf.report.table import render_table

MakeDocument = Callable[..., RunDocument]


def printed(document: RunDocument, width: int = 100, terminal: bool = False) -> str:
    screen = Console(file=StringIO(), width=width, force_terminal=terminal, highlight=False)
    for part in render_table(document):
        screen.print(part)
    assert isinstance(screen.file, StringIO)
    return screen.file.getvalue()


def tables(markdown: str) -> list[list[str]]:
    """The tables as lists of lines."""
    blocks = (block.splitlines() for block in markdown.split("\n\n"))
    return [lines for lines in blocks if lines and lines[0].startswith("|")]


def test_a_usual_run_is_short_in_markdown(document: RunDocument) -> None:
    assert len(render_markdown(document).splitlines()) < 60


def test_every_row_of_a_markdown_table_has_the_columns_of_its_head(document: RunDocument) -> None:
    found = tables(render_markdown(document))
    assert len(found) == 4
    for lines in found:
        assert len(lines) >= 4 or len(lines) == 2 + 3
        assert len({line.count("|") for line in lines}) == 1


def test_names_cannot_break_a_markdown_table(make_document: MakeDocument) -> None:
    name = "a|b `c` <script> _d_ [e](f)\ng"
    run = make_document(names=("baseline", name), rounds=2, window_s=0.3, concurrencies=(1,))
    text = render_markdown(run)
    for lines in tables(text):
        assert len({line.count("|") for line in lines}) == 1
    assert "<script>" not in text
    assert "`" not in text
    assert "](" not in text
    assert html.unescape(escaped(name)) == "a|b `c` <script> _d_ [e](f) g"


def test_names_of_the_usual_kind_stay_readable_in_markdown() -> None:
    assert escaped("fused_int8 @ 4 [1, 2]") == "fused_int8 @ 4 [1, 2]"


@pytest.mark.parametrize("outcome", ["pass", "fail", "inconclusive"])
def test_verdict_and_sentence_open_the_markdown_and_end_the_table(
    make_document: MakeDocument, outcome: str
) -> None:
    run = make_document(concurrencies=(), outcome=outcome)
    assert re.match(rf"# . {outcome}: ", render_markdown(run))
    assert re.search(rf"{outcome}: fused_int8 ", printed(run, width=400).splitlines()[-1])


def test_html_markdown_and_terminal_show_the_same_figures(document: RunDocument) -> None:
    page, markdown, terminal = render_html(document), render_markdown(document), printed(document)
    for row in speed_rows(document):
        for key in ("throughput", "p50", "p95", "p99"):
            cell = row.cells[key]
            assert f"{cell.text} {cell.interval}" in markdown
            assert f"{cell.text} {cell.interval}" in terminal
            assert f">{cell.interval}<" in page
            if cell.ratio:
                assert f"{cell.ratio} {cell.outcome}" in markdown
                assert f"{cell.ratio} {cell.outcome}" in terminal


def test_the_table_fits_a_hundred_columns_without_breaking_a_figure(document: RunDocument) -> None:
    text = printed(document)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_the_table_names_the_server_as_it_names_itself(document: RunDocument) -> None:
    assert "fashion_resnet on triton 2.59.0" in printed(document)


def test_a_pipe_gets_no_control_characters_and_a_terminal_gets_colour(
    document: RunDocument,
) -> None:
    assert "\x1b" not in printed(document)
    assert "\x1b[" in printed(document, terminal=True)


def test_names_are_no_markup_in_the_terminal(make_document: MakeDocument) -> None:
    run = make_document(names=("baseline", "[red]x[/red]"), concurrencies=())
    assert "[red]x[/red]" in printed(run)


@pytest.mark.parametrize(
    "kind",
    [
        {"with_labels": False},
        {"with_memory": False},
        {"with_server": False},
        {"concurrencies": ()},
        {"errors": 2},
        {"names": ("baseline",)},
        {"names": tuple("abcdefgh")},
    ],
    ids=lambda kind: next(iter(kind)),
)
def test_every_kind_of_run_has_its_text_forms(
    make_document: MakeDocument, kind: dict[str, object]
) -> None:
    settings: dict[str, object] = {"rounds": 2, "window_s": 0.3, "concurrencies": (1,)}
    run = make_document(**(settings | kind))
    for text in (render_markdown(run), printed(run)):
        assert all(entry.name in text for entry in run.variants)
        assert not re.search(r"\b(None|nan|inf)\b", text)


def test_a_missing_percentile_says_what_it_needs_in_both_forms(make_document: MakeDocument) -> None:
    run = make_document(rounds=2, window_s=0.2, concurrencies=(1,))
    assert "– (needs 459 requests)" in render_markdown(run)
    assert "needs 459 requests" in printed(run)
