"""What one quantisation did, as a page of its own: pictures, and every tensor in a table."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimton.perf.report import numbers
from trimton.perf.report.charts import quantisation

_PACKAGE = "trimton.perf.report"


def render_explanation(name: str, report: Mapping[str, Any]) -> str:
    """A self-contained page about the model ``name``; ``report`` is a transform's machine form."""
    steps = report["steps"]
    environment = Environment(
        loader=PackageLoader(_PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("explanation.html.j2").render(
        name=name,
        steps=steps,
        charts=quantisation.step_charts(name, steps),
        tensors=[row for step in steps for row in step["detail"].get("tensors", ())],
        number=numbers.number_text,
        style=Markup(files(_PACKAGE).joinpath("report.css").read_text(encoding="utf-8")),
    )
