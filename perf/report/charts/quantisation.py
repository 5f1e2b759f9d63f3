"""What quantisation costs: the noisiest tensors, and the harm of each layer if measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimton.perf.report import numbers
from trimton.perf.report.charts import bars, frame
from trimton.perf.report.document import RunDocument

_SHOWN = 12
_INTEGERS, _FLOAT = ("in integers", "m2"), ("left in float", "m0")
_AXIS = "signal to quantisation noise, dB"

Row = Mapping[str, Any]


def charts(document: RunDocument) -> list[frame.Chart]:
    """Up to two charts for each quantised variant; none where nothing was quantised."""
    return [
        chart
        for entry in document.variants
        for report in entry.transforms
        for chart in step_charts(entry.name, report["steps"])
    ]


def step_charts(variant: str, steps: Sequence[Row]) -> list[frame.Chart]:
    """The charts of one transform, from the steps of its report's machine form."""
    drawn = []
    for step in steps:
        detail = step["detail"]
        if step["name"] == "ranges" and detail["tensors"]:
            drawn.append(_tensors(variant, detail["tensors"]))
        if step["name"] == "mixed-precision" and detail["layers"]:
            drawn.append(_layers(variant, detail["layers"], set(detail["in_float"])))
    return drawn


def _tensors(variant: str, rows: Sequence[Row]) -> frame.Chart:
    shown = [_tensor(row) for row in rows if row["sqnr_db"] is not None][:_SHOWN]
    return frame.Chart(
        title=f"Noisiest tensors of {variant}",
        caption=f"The {len(shown)} of {len(rows)} quantised activations with the most noise: the "
        "shorter a bar, the noisier. In it the range and the share of values beyond.",
        drawing=bars.stacked("Bars of the noise of quantised activations.", shown, _AXIS),
        legend=(),
        toggles=False,
    )


def _tensor(row: Row) -> bars.Bar:
    ratio = numbers.number_text(row["sqnr_db"])
    low, high = (numbers.number_text(row[end]) for end in ("low", "high"))
    least, most = (numbers.number_text(row[end]) for end in ("minimum", "maximum"))
    tip = (
        f"{row['name']}: integers cover {low} to {high} in steps of "
        f"{numbers.number_text(row['scale'])}; samples reach {least} to {most}"
    )
    inside = f"{low} to {high}, {row['clipped_share']:.2%} clipped"
    segment = bars.Segment(max(row["sqnr_db"], 0.0), _INTEGERS[1], inside, tip)
    return bars.Bar(row["name"], [segment], f"{ratio} dB")


def _layers(variant: str, rows: Sequence[Row], in_float: set[str]) -> frame.Chart:
    shown = [_layer(row, row["name"] in in_float) for row in rows[:_SHOWN]]
    return frame.Chart(
        title=f"Most sensitive layers of {variant}",
        caption="Noise of the model's outputs with this layer alone in integers: the shorter a "
        "bar, the more harm.",
        drawing=bars.stacked("Bars of the harm of each layer alone in integers.", shown, _AXIS),
        legend=frame.block_legend((_INTEGERS, _FLOAT)),
        toggles=False,
    )


def _layer(row: Row, is_float: bool) -> bars.Bar:
    ratio = f"{numbers.number_text(row['sqnr_db'])} dB"
    name, class_ = _FLOAT if is_float else _INTEGERS
    tip = f"{row['name']}, {name}: {row['macs_share']:.1%} of the multiply-accumulates"
    agreement = "" if row["agreement"] is None else f"{row['agreement']:.1%} agree"
    segment = bars.Segment(max(row["sqnr_db"], 0.0), class_, agreement, tip)
    return bars.Bar(row["name"], [segment], ratio)
