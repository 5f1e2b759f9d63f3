"""Pictures of what quantisation costs."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from trimton.perf.report.charts import frame, quantisation
from trimton.perf.report.document import RunDocument
from trimton.perf.report.explanation import render_explanation
from trimton.perf.report.html import render_html


def tensor(name: str, sqnr_db: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "minimum": -0.5,
        "maximum": 9.0,
        "low": 0.0,
        "high": 6.0,
        "scale": 6 / 255,
        "zero_point": 0,
        "sqnr_db": sqnr_db,
        "clipped_share": 0.0125,
    }


def layer(name: str, sqnr_db: float) -> dict[str, Any]:
    return {"name": name, "sqnr_db": sqnr_db, "agreement": 0.75, "macs_share": 0.1}


RANGES = {
    "name": "ranges",
    "what": "ranges",
    "count": 3,
    "detail": {"tensors": [tensor("<a>", 10.0), tensor("b", 40.0), tensor("zeros", None)]},
}
MIXED = {
    "name": "mixed-precision",
    "what": "layers in float",
    "count": 1,
    "detail": {"in_float": ["stem"], "layers": [layer("stem", 12.0), layer("head", 48.0)]},
}


@pytest.fixture
def quantised(document: RunDocument) -> RunDocument:
    *others, last = document.variants
    fuse, report = last.transforms
    changed = {**report, "steps": [*report["steps"], RANGES, MIXED]}
    last = last.model_copy(update={"transforms": (fuse, changed)})
    return document.model_copy(update={"variants": (*others, last)})


def blocks(chart: frame.Chart) -> list[tuple[float, str]]:
    tree = ElementTree.fromstring(str(chart.drawing))
    return [(float(r.attrib["width"]), r.attrib["class"]) for r in tree.iter("rect")]


def texts(chart: frame.Chart) -> str:
    return " ".join(ElementTree.fromstring(str(chart.drawing)).itertext())


def test_a_run_without_ranges_has_no_such_chart(document: RunDocument) -> None:
    assert quantisation.charts(document) == []


def test_bars_of_tensors_are_as_long_as_their_ratio_to_the_noise(quantised: RunDocument) -> None:
    tensors, _ = quantisation.charts(quantised)
    (first, _), (second, _) = blocks(tensors)
    assert second / first == pytest.approx(4)
    assert "10.0 dB" in texts(tensors)
    assert "0 to 6.00, 1.25% clipped" in texts(tensors)
    assert "integers cover 0 to 6.00" in texts(tensors)
    assert "The 2 of 3 quantised activations" in tensors.caption


def test_layers_left_in_float_look_different(quantised: RunDocument) -> None:
    _, layers = quantisation.charts(quantised)
    (first, in_float), (second, in_integers) = blocks(layers)
    assert second / first == pytest.approx(4)
    assert in_float != in_integers
    assert [entry.name for entry in layers.legend] == ["in integers", "left in float"]
    assert "75.0% agree" in texts(layers)


def test_the_report_shows_them_with_escaped_names(quantised: RunDocument) -> None:
    page = render_html(quantised)
    assert "Noisiest tensors of fused_int8" in page
    assert "&lt;a&gt;" in page
    assert "<a>" not in page


def test_the_explanation_lists_every_tensor_and_every_step(quantised: RunDocument) -> None:
    page = render_explanation("<model>", quantised.variants[-1].transforms[-1])
    assert "Quantisation of &lt;model&gt;" in page
    assert "layers in float" in page
    rows = page[page.index("<tbody>") :]
    assert rows.count('<th scope="row"') == 3
    assert "1.250 %" in rows
    assert "<a>" not in page
