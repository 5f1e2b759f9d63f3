"""Memory of a fresh server with one variant: empty, model loaded, under load."""

from __future__ import annotations

from trimton.perf.report import numbers
from trimton.perf.report.charts import bars, frame
from trimton.perf.report.document import RunDocument
from trimton.perf.results import MemoryUse

_MEBIBYTE = 1024 * 1024
_PARTS = (("empty server", "m0"), ("model loaded", "m1"), ("under load", "m2"))


def charts(document: RunDocument) -> list[frame.Chart]:
    """One chart; none where memory was not measured."""
    uses = {use.variant: use for use in document.memory}
    rows = [_bar(uses[entry.name]) for entry in document.variants if entry.name in uses]
    if not rows:
        return []
    return [
        frame.Chart(
            title="Memory",
            caption="Proportional set size of the process tree of a fresh server with this"
            " variant alone.",
            drawing=bars.stacked(
                "Stacked bars of the server's memory for each variant: empty, model loaded,"
                " under load.",
                rows,
                "proportional set size, MiB",
            ),
            legend=frame.block_legend(_PARTS),
            toggles=False,
        )
    ]


def _bar(use: MemoryUse) -> bars.Bar:
    # Under load a server may hold less than before: no part then reaches beyond the total.
    total = use.under_load_pss_bytes
    loaded = min(use.loaded_pss_bytes, total)
    empty = min(use.empty_server_pss_bytes, loaded)
    measured = (use.empty_server_pss_bytes, use.loaded_pss_bytes, use.under_load_pss_bytes)
    lengths = (empty, loaded - empty, total - loaded)
    segments = [
        bars.Segment(
            length / _MEBIBYTE,
            class_,
            numbers.number_text(length / _MEBIBYTE),
            f"{use.variant}, {name}: {numbers.size_text(size)}",
        )
        for (name, class_), length, size in zip(_PARTS, lengths, measured, strict=True)
    ]
    return bars.Bar(use.variant, segments, numbers.size_text(total))
