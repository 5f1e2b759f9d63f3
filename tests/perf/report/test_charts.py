"""The pictures: what is drawn is what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.perf.measure.histogram import LatencyHistogram, requests_needed
from trimton.perf.report.charts import (
    frame,
    latency_percentiles,
    latency_throughput,
    memory,
    rounds,
    scale,
    style,
    svg,
    time_split,
    tradeoff,
)
from trimton.perf.report.document import RunDocument
from trimton.perf.report.percentiles import percentile_curve

MakeDocument = Callable[..., RunDocument]


def drawn(chart: frame.Chart) -> ElementTree.Element:
    """The chart's SVG as a tree: it must be well-formed XML, too."""
    return ElementTree.fromstring(str(chart.drawing))


def places(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def curves(chart: frame.Chart) -> dict[str, list[tuple[float, float]]]:
    """The line of each variant."""
    found = {}
    for group in drawn(chart).iter("g"):
        for line in group.iter("polyline"):
            if "curve" in line.attrib["class"] and "data-variant" in group.attrib:
                found[group.attrib["data-variant"]] = places(line)
    return found


def widths(chart: frame.Chart) -> list[float]:
    return [float(rect.attrib["width"]) for rect in drawn(chart).iter("rect")]


def tips(chart: frame.Chart) -> list[str]:
    return [title.text or "" for title in drawn(chart).iter("title")]


# --- scales --------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9), st.booleans())
def test_a_linear_scale_holds_all_values_between_round_ticks(
    values: list[float], from_zero: bool
) -> None:
    found = scale.linear(values, 0, 100, from_zero=from_zero)
    slack = 1e-6 * (found.high - found.low)
    assert found.low - slack <= min(values)
    assert max(values) <= found.high + slack
    assert 2 <= len(found.ticks) <= 9
    assert len({tick.label for tick in found.ticks}) == len(found.ticks)
    assert found.at(found.low) == pytest.approx(0)
    assert found.at(found.high) == pytest.approx(100)
    if from_zero:
        assert found.low <= 0


def test_a_linear_scale_shows_zero_unless_that_wastes_half_of_it() -> None:
    assert scale.linear([3, 10], 0, 1).low == 0
    assert scale.linear([92.0, 94.5], 0, 1).low == pytest.approx(92)


def test_a_scale_of_percentiles_gives_every_nine_the_same_width() -> None:
    found = scale.percentile(0.999, 0, 300)
    assert [found.at(share) for share in (0.0, 0.9, 0.99, 0.999)] == pytest.approx(
        [0, 100, 200, 300]
    )
    assert [tick.label for tick in found.ticks] == ["p0", "p50", "p90", "p99", "p99.9"]


# --- marks ---------------------------------------------------------------------------------------


def test_text_and_attributes_are_escaped() -> None:
    mark = svg.element("text", "<b>&", data_variant='"<x>', x=1.50001)
    assert str(mark) == '<text data-variant="&#34;&lt;x&gt;" x="1.5">&lt;b&gt;&amp;</text>'


def test_variants_differ_by_marker_and_dash_and_not_by_colour_alone() -> None:
    markers = [str(style.marker(index, 0, 0)) for index in range(style.COLOURS)]
    assert len(set(markers)) == style.COLOURS
    assert len({style.dash(index) for index in range(style.COLOURS)}) == style.COLOURS


def test_a_long_name_keeps_its_head_and_tail() -> None:
    assert svg.shortened("short", 10) == "short"
    assert svg.shortened("abcdefghijklmnop", 7) == "abc…nop"


# --- pictures ------------------------------------------------------------------------------------


def test_latency_against_throughput_has_a_line_for_each_variant_and_a_point_for_each_load(
    document: RunDocument,
) -> None:
    median, tail = latency_throughput.charts(document)
    assert median.title == "Throughput and median latency"
    assert tail.title == "Throughput and p99 latency"
    lines = curves(median)
    assert list(lines) == ["baseline", "fused", "fused_int8"]
    levels = {(lv.variant, lv.concurrency): lv for lv in document.levels}
    for name, line in lines.items():
        (x1, y1), (x4, y4) = line
        one, four = levels[name, 1], levels[name, 4]
        assert one.latency_ms.p50 is not None
        assert four.latency_ms.p50 is not None
        assert (x4 > x1) == (four.throughput_rps.value > one.throughput_rps.value)
        assert (y4 < y1) == (four.latency_ms.p50.value > one.latency_ms.p50.value)
        # Both axes start at zero here, so places are proportional to values.
        share = (x1 - frame.LEFT) / (x4 - frame.LEFT)
        assert share == pytest.approx(
            one.throughput_rps.value / four.throughput_rps.value, rel=1e-3
        )


def test_a_disturbed_interval_is_cut_and_does_not_press_the_picture_flat(
    document: RunDocument,
) -> None:
    level = document.levels[-1]
    assert level.latency_ms.p99 is not None
    wild = level.latency_ms.p99.model_copy(update={"high": 5000.0})
    latency = level.latency_ms.model_copy(update={"p99": wild})
    levels = (*document.levels[:-1], level.model_copy(update={"latency_ms": latency}))
    _, before = latency_throughput.charts(document)
    _, after = latency_throughput.charts(document.model_copy(update={"levels": levels}))
    height = max(y for _, y in curves(before)["baseline"]) - frame.TOP
    assert max(y for _, y in curves(after)["baseline"]) - frame.TOP < 2 * height
    uncapped = [
        line
        for line in drawn(after).iter("line")
        if line.attrib["class"] == "error" and float(line.attrib["y2"]) == frame.TOP
    ]
    assert len(uncapped) == 1


def test_the_tail_is_the_furthest_percentile_that_all_levels_have(
    make_document: MakeDocument,
) -> None:
    run = make_document(rounds=2, window_s=0.4, concurrencies=(1,))
    assert [chart.title for chart in latency_throughput.charts(run)][
        -1
    ] == "Throughput and p95 latency"


def test_a_percentile_curve_is_the_merged_histogram_and_ends_where_requests_end(
    document: RunDocument,
) -> None:
    windows = [w for w in document.windows if (w.variant, w.concurrency) == ("fused", 4)]
    curve = percentile_curve(windows)
    assert curve is not None
    assert curve.requests == sum(w.requests for w in windows)
    shares = [share for share, _ in curve.points]
    latencies = [latency for _, latency in curve.points]
    assert shares == sorted(shares)
    assert latencies == sorted(latencies)
    assert requests_needed(shares[-1]) <= curve.requests < requests_needed(shares[-1] ** 0.98)
    merged = LatencyHistogram.merged(LatencyHistogram.decode(w.latency_histogram) for w in windows)
    assert dict(curve.points)[shares[80]] == merged.percentile_ms(shares[80])


def test_without_requests_there_is_no_percentile_curve(document: RunDocument) -> None:
    empty = document.windows[0].model_copy(
        update={"latency_histogram": LatencyHistogram().encode(), "requests": 0}
    )
    assert percentile_curve([empty]) is None
    assert percentile_curve([]) is None


def test_latency_distributions_come_one_for_each_load(document: RunDocument) -> None:
    charts = latency_percentiles.charts(document)
    assert [chart.title for chart in charts] == [
        "Latency distribution, concurrency 1",
        "Latency distribution, concurrency 4",
    ]
    assert all(len(curves(chart)) == 3 for chart in charts)
    assert all(re.search(r"p99 [\d.]+ ms", tip) for chart in charts for tip in tips(chart))


def test_bubble_areas_are_proportional_to_throughput(document: RunDocument) -> None:
    [chart] = tradeoff.charts(document)
    radii = [
        float(circle.attrib["r"])
        for circle in drawn(chart).iter("circle")
        if circle.attrib["class"] == "bubble"
    ]
    rps = [lv.throughput_rps.value for lv in document.levels if lv.concurrency == 4]
    for radius, value in zip(radii, rps, strict=True):
        assert (radius / max(radii)) ** 2 == pytest.approx(value / max(rps), rel=2e-3)


def test_bubble_labels_never_cover_one_another(make_document: MakeDocument) -> None:
    run = make_document(
        names=[f"v{n}" for n in range(8)], rounds=2, window_s=0.2, concurrencies=(1,)
    )
    [chart] = tradeoff.charts(run)
    labels = [t for t in drawn(chart).iter("text") if t.attrib["class"] == "bubble-label"]
    spots = [(float(t.attrib["x"]), float(t.attrib["y"])) for t in labels]
    assert len(spots) == 8
    for place, (x, y) in enumerate(spots):
        assert all(abs(x - a) >= 60 or abs(y - b) >= 18 for a, b in spots[place + 1 :])


def test_without_labels_the_tradeoff_shows_agreement(make_document: MakeDocument) -> None:
    [chart] = tradeoff.charts(make_document(with_labels=False, concurrencies=()))
    assert chart.title == "Size, agreement with the baseline and speed"
    assert "nothing (no load test)" in chart.caption


def test_the_parts_of_a_request_add_up_to_what_the_client_saw(document: RunDocument) -> None:
    [chart] = time_split.charts(document)
    level = document.levels[0]
    own = [tip for tip in tips(chart) if tip.startswith(f"{level.variant}, concurrency 1: ")]
    parts = [float(tip.split()[-2]) for tip in own]
    assert len(parts) == 6
    assert math.fsum(parts) == pytest.approx(level.latency_ms.mean.value, rel=0.01)


def test_a_server_that_claims_more_time_than_the_client_saw_draws_no_negative_part(
    document: RunDocument,
) -> None:
    level = document.levels[0]
    assert level.server is not None
    claimed = level.server.model_copy(update={"request_us": 1e6})
    run = document.model_copy(update={"levels": (level.model_copy(update={"server": claimed}),)})
    [chart] = time_split.charts(run)
    assert all(width > 0 for width in widths(chart))


def test_memory_bars_are_as_long_as_the_memory_under_load(document: RunDocument) -> None:
    [chart] = memory.charts(document)
    found = widths(chart)
    bars = [sum(found[place : place + 3]) for place in range(0, len(found), 3)]
    used = [use.under_load_pss_bytes for use in document.memory]
    for bar, size in zip(bars, used, strict=True):
        assert bar / bars[0] == pytest.approx(size / used[0], rel=1e-3)


def test_memory_that_fell_under_load_does_not_lengthen_its_bar(document: RunDocument) -> None:
    first, second, _ = document.memory
    fallen = second.model_copy(update={"loaded_pss_bytes": 2 * second.under_load_pss_bytes})
    [chart] = memory.charts(document.model_copy(update={"memory": (first, fallen)}))
    assert len(widths(chart)) == 5
    kept = sum(widths(chart)[:3]) / sum(widths(chart)[3:])
    assert kept == pytest.approx(first.under_load_pss_bytes / second.under_load_pss_bytes, rel=1e-3)


def test_rounds_show_every_window_in_the_order_of_measuring(document: RunDocument) -> None:
    chart = rounds.charts(document)[0]
    lines = curves(chart)
    assert sum(map(len, lines.values())) == 18
    # Every other round of the run goes through the variants backwards.
    first = {name: line[0][0] for name, line in lines.items()}
    second = {name: line[1][0] for name, line in lines.items()}
    assert sorted(first, key=first.__getitem__) == ["baseline", "fused", "fused_int8"]
    assert sorted(second, key=second.__getitem__) == ["fused_int8", "fused", "baseline"]
    heights = [y for _, y in lines["fused"]]
    rps = [w.throughput_rps for w in document.windows if (w.variant, w.concurrency) == ("fused", 1)]
    assert sorted(range(6), key=heights.__getitem__) == sorted(range(6), key=lambda i: -rps[i])


def test_what_was_not_measured_has_no_picture(make_document: MakeDocument) -> None:
    bare = make_document(concurrencies=(), with_memory=False)
    for picture in (latency_throughput, latency_percentiles, time_split, memory, rounds):
        assert picture.charts(bare) == []
    served = make_document(with_server=False, rounds=2, window_s=0.2, concurrencies=(1,))
    assert time_split.charts(served) == []
