"""What every command does that makes one model from another: load, transform, save, tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich.table import Table

from trimton.core.errors import UnsupportedModelError
from trimton.perf.report.numbers import count_text, size_text
from trimton.plugin.cli.output import console, print_json, progress
from trimton.plugin.samples import load_samples
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.report import TransformReport

Inputs = Mapping[str, npt.NDArray[np.generic]]
# Of a model and, where given, samples for its inputs.
Transform = Callable[[ir.Model, Inputs | None], tuple[ir.Model, TransformReport]]
TransformWithData = Callable[[ir.Model, Inputs], tuple[ir.Model, TransformReport]]


def run(
    source: Path,
    result: Path,
    transform: Transform,
    *,
    data: str | None,
    doing: str,
    json: bool,
    before_saving: Callable[[TransformReport], None] = lambda report: None,
) -> None:
    """Transform the model in ``source`` into ``result``, and print the report.

    ``data`` says where samples come from; ``doing`` is shown meanwhile. Nothing is written where
    the transform or ``before_saving`` fails; a model that is refused is named in the error.
    """
    model = load_model(source)
    inputs = None if data is None else load_samples(data, input_specs(model)).inputs
    with progress() as shown:
        shown.add_task(doing, total=None)
        try:
            made, report = transform(model, inputs)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{source}: {error}") from error
    before_saving(report)
    finish(made, report, result, json)


def run_with_data(
    source: Path,
    result: Path,
    transform: TransformWithData,
    *,
    data: str,
    doing: str,
    json: bool,
    before_saving: Callable[[TransformReport], None] = lambda report: None,
) -> None:
    """The same for a transform that cannot do without samples."""

    def with_data(model: ir.Model, inputs: Inputs | None) -> tuple[ir.Model, TransformReport]:
        assert inputs is not None, "data was given"
        return transform(model, inputs)

    run(
        source,
        result,
        with_data,
        data=data,
        doing=doing,
        json=json,
        before_saving=before_saving,
    )


def finish(model: ir.Model, report: TransformReport, path: Path, json: bool) -> None:
    """Write ``model`` to ``path`` and print ``report`` as a table or as JSON."""
    save_model(model, path)
    if json:
        print_json(report.to_json())
        return
    screen = console()
    table = Table("", "before", "after", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    before, after = report.before, report.after
    table.add_row("size", size_text(before.size_bytes), size_text(after.size_bytes))
    table.add_row("parameters", count_text(before.parameters), count_text(after.parameters))
    table.add_row("multiply-accumulates", count_text(before.macs), count_text(after.macs))
    table.add_row("nodes", str(before.nodes), str(after.nodes))
    screen.print(table)
    if not report.changed:
        screen.print(f"\n{report.transform} changes nothing in this model.")
    for step in report.steps:
        screen.print(f"  {step.count:>5} × {step.what}", soft_wrap=True)
    if report.max_relative_difference is not None:
        screen.print(f"\nlargest relative output difference: {report.max_relative_difference:.2g}")
    _print_skipped(report)
    screen.print(f"written to {path}", soft_wrap=True)


def _print_skipped(report: TransformReport) -> None:
    reasons = Counter(skipped.why for skipped in report.skipped)
    if reasons:
        console().print(f"left alone: {len(report.skipped)} (each one with --json)")
    for why, count in reasons.most_common():
        console().print(f"  {count:>5} × {why}", soft_wrap=True)
