"""The page: self-contained, well-formed, escaped, and right in every kind of run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

from trimton.perf.report.cells import Cell
from trimton.perf.report.document import RunDocument
from trimton.perf.report.html import render_html
from trimton.perf.report.rows import speed_rows, variant_rows

MakeDocument = Callable[..., RunDocument]

VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}
HOSTILE = "<script>alert('1')</script>&\"x"
LONG = "pruned_40_percent_then_distilled_with_a_rather_long_name_and_quantised"


class Page(HTMLParser):
    """Reads a page, insists that every tag is closed in order, and collects what it holds."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> repeats an attribute"
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)

    def attributes(self, name: str) -> Iterator[str]:
        return (attrs[name] or "" for _, attrs in self.tags if name in attrs)


@pytest.fixture(scope="module")
def page(document: RunDocument) -> Page:
    return Page(render_html(document))


def test_the_page_loads_nothing_from_anywhere(document: RunDocument) -> None:
    text = render_html(document)
    found = Page(text)
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert found.count("link") == 0
    assert list(found.attributes("src")) == []
    assert all(target.startswith("#") for target in found.attributes("href"))
    assert len(text) < 300_000


def test_every_link_of_the_navigation_leads_somewhere(page: Page) -> None:
    targets = [target.removeprefix("#") for target in page.attributes("href")]
    assert len(targets) == 8
    assert set(targets) <= set(page.attributes("id"))


def test_the_page_opens_with_the_verdict_and_its_meaning(page: Page) -> None:
    assert "fused_int8 may ship in place of baseline: all 4 checks hold." in page.text
    assert "exit code 0" in page.text


def test_every_figure_of_the_tables_stands_in_the_page(document: RunDocument, page: Page) -> None:
    cells = [" ".join(cell.split()) for cell in page.cells]
    rows = [*variant_rows(document), *speed_rows(document)]
    expected: list[Cell] = [cell for row in rows for key, cell in row.cells.items()]
    assert len(expected) > 70
    for cell in expected:
        parts = [cell.text, cell.interval, f"{cell.ratio}"]
        text = " ".join(part for part in parts if part)
        assert any(found.startswith(text) for found in cells), text


def test_a_changed_measurement_changes_the_page(document: RunDocument) -> None:
    level = document.levels[0]
    faster = level.throughput_rps.model_copy(update={"value": 7654.0, "low": None, "high": None})
    levels = (level.model_copy(update={"throughput_rps": faster}), *document.levels[1:])
    assert "7,654" in Page(render_html(document.model_copy(update={"levels": levels}))).text
    assert "7,654" not in Page(render_html(document)).text


def test_outcomes_are_words_and_never_colour_alone(page: Page, document: RunDocument) -> None:
    cells = [cell for row in speed_rows(document) for cell in row.cells.values()]
    outcomes = {cell.outcome for cell in cells if cell.outcome is not None}
    assert len(outcomes) > 1
    for outcome in outcomes:
        assert any(re.search(rf"× .? ?{outcome}$", " ".join(c.split())) for c in page.cells)


def test_every_chart_has_a_label_for_screen_readers(page: Page) -> None:
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(charts) == 9
    assert all(attrs["aria-label"] for attrs in charts)


def test_hostile_names_stay_text(make_document: MakeDocument) -> None:
    run = make_document(names=("baseline", HOSTILE), rounds=2, window_s=0.3, concurrencies=(1,))
    run = run.model_copy(
        update={"title": HOSTILE, "notes": (HOSTILE,), "settings": {HOSTILE: HOSTILE}}
    )
    text = render_html(run)
    found = Page(text)
    assert found.count("script") == 1
    assert "alert('1')</script>" not in text.replace("&#39;", "'")
    assert found.text.count(HOSTILE) > 5


def test_digests_and_skipped_nodes_can_be_looked_up(page: Page, document: RunDocument) -> None:
    assert all(entry.digest in page.text for entry in document.variants)
    assert "/head/Gemm" in page.text
    assert "excluded by the recipe" in page.text
    assert "Left alone: 2" in page.text


@pytest.mark.parametrize(
    "kind",
    [
        {"with_labels": False},
        {"with_server": False},
        {"with_memory": False},
        {"concurrencies": ()},
        {"errors": 3},
        {"outcome": "fail"},
        {"outcome": "inconclusive"},
        {"names": ("baseline",)},
        {"names": ("baseline", *(f"{LONG}_{number}" for number in range(7)))},
        {"names": ("baseline", *(f"v{number}" for number in range(11))), "concurrencies": ()},
    ],
    ids=lambda kind: next(iter(kind)),
)
def test_every_kind_of_run_makes_a_well_formed_page(
    make_document: MakeDocument, kind: dict[str, object]
) -> None:
    settings: dict[str, object] = {"rounds": 2, "window_s": 0.3, "concurrencies": (1,)}
    run = make_document(**(settings | kind))
    found = Page(render_html(run))
    for entry in run.variants:
        assert entry.name in found.text
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", found.text)
    coordinates = (
        attrs.get(name) or "" for _, attrs in found.tags for name in ("points", "x", "cy")
    )
    assert not any("nan" in coordinate or "inf" in coordinate for coordinate in coordinates)


def test_a_run_without_load_shows_no_empty_sections(make_document: MakeDocument) -> None:
    found = Page(render_html(make_document(concurrencies=())))
    identifiers = set(found.attributes("id"))
    assert {"verdict", "models", "transforms", "environment"} <= identifiers
    assert not {"speed", "latency", "rounds"} & identifiers


def test_missing_percentiles_are_explained_where_they_are_missing(
    make_document: MakeDocument,
) -> None:
    run = make_document(rounds=2, window_s=0.2, concurrencies=(1,))
    cells = [" ".join(cell.split()) for cell in Page(render_html(run)).cells]
    assert cells.count("– needs 459 requests") == 3


def test_errors_are_counted_by_kind(make_document: MakeDocument) -> None:
    run = make_document(rounds=2, window_s=0.3, concurrencies=(1,), errors=3)
    found = Page(render_html(run))
    assert list(found.attributes("title")).count("timeout: 6") == 3


def test_huge_numbers_keep_the_page_readable(make_document: MakeDocument) -> None:
    run = make_document(rounds=2, window_s=0.3, concurrencies=(1,))
    huge = run.variants[1].model_copy(
        update={"size_bytes": 10**18, "parameters": 10**15, "macs": 10**21, "nodes": 10**9}
    )
    text = Page(render_html(run.model_copy(update={"variants": (run.variants[0], huge)}))).text
    for figure in ("909,495 TiB", "1,000 T", "1.00e+09 T", "1,000,000,000"):
        assert figure in text
