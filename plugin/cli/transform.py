"""The end of every command that makes one model from another: save, then tell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
from rich.table import Table

from trimton.perf.report.numbers import count_text, size_text
from trimton.plugin.cli.output import console, print_json
from trimton.transforms.graph.save import save_model
from trimton.transforms.report import TransformReport


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
