"""The report as one HTML file: it needs no network, no other file, and no script to be read."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from trimton.perf.report.cells import MODEL_COLUMNS, SPEED_COLUMNS
from trimton.perf.report.charts import (
    latency_percentiles,
    latency_throughput,
    memory,
    quantisation,
    rounds,
    time_split,
    tradeoff,
)
from trimton.perf.report.charts.style import variant_class
from trimton.perf.report.document import RunDocument
from trimton.perf.report.facts import fact_groups, server_text
from trimton.perf.report.headline import SIGNS, headline, highlights
from trimton.perf.report.rows import check_groups, filled, loads, notes, speed_rows, variant_rows
from trimton.perf.report.transform_rows import transform_rows

_PACKAGE = "trimton.perf.report"


def render_html(document: RunDocument) -> str:
    """``document`` as a complete, self-contained page.

    Every text of the document is escaped; charts are inline SVG.
    """
    models, speeds = variant_rows(document), speed_rows(document)
    return _template().render(
        document=document,
        headline=headline(document),
        highlights=highlights(document),
        check_groups=check_groups(document),
        models=models,
        model_columns=[column for column in MODEL_COLUMNS if filled(models, column.key)],
        speeds=speeds,
        speed_columns=[column for column in SPEED_COLUMNS if filled(speeds, column.key)],
        loads=loads(document),
        latency_charts=latency_throughput.charts(document) + latency_percentiles.charts(document),
        cost_charts=[
            *tradeoff.charts(document),
            *memory.charts(document),
            *time_split.charts(document),
        ],
        round_charts=rounds.charts(document),
        quantisation_charts=quantisation.charts(document),
        transforms=transform_rows(document),
        facts=fact_groups(document),
        server=server_text(document),
        notes=notes(document),
        signs=SIGNS,
        variant_class=variant_class,
        style=_asset("report.css"),
        script=_asset("report.js"),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2")


def _asset(name: str) -> Markup:
    return Markup(files(_PACKAGE).joinpath(name).read_text(encoding="utf-8"))


def _breakable(name: str) -> Markup:
    """``name``, escaped, with places where a long one may break."""
    parts = re.split(r"(?<=[_\-./])", name)
    return Markup("<wbr>").join(parts)
