"""``trimton inspect``: what a model is, takes, gives and weighs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trimton.core.errors import InputError
from trimton.perf.report.numbers import count_text, size_text
from trimton.plugin.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    import onnx_ir as ir

_HEAVIEST = 10


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file, a folder with model.onnx, or a model of a Triton repository.",
        ),
    ],
    dims: Annotated[
        list[str] | None,
        typer.Option(
            "--dim",
            metavar="NAME=SIZE",
            help="Size of a free dimension for counting multiply-accumulates (repeatable; 1).",
        ),
    ] = None,
    try_fuse: Annotated[
        bool, typer.Option("--fuse", help="Also say what trimton fuse would do.")
    ] = False,
    show_prunable: Annotated[
        bool,
        typer.Option("--prunable", help="Also show what trimton prune can remove, and what not."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="With --prunable: samples as trimton prune takes them, on which the absence of "
            "each block is measured.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show a model's interface, operators and costs.

    Example: trimton inspect model_repository/fashion_resnet --fuse
    """
    from trimton.transforms.graph.load import load_model

    if data is not None and not show_prunable:
        raise InputError("--data: is of use with --prunable only; give both.")
    path = _resolve(source)
    model = load_model(path)
    facts = _facts(model, path, _sizes(dims or []), try_fuse=try_fuse)
    if show_prunable:
        from trimton.plugin.cli.prunable import prunable_facts

        facts["prunable"] = prunable_facts(model, path, data)
    if json:
        print_json(facts)
    else:
        _show(facts)


def _resolve(source: Path) -> Path:
    """The model that ``source`` means: in a Triton model folder, the latest version."""
    from trimton.plugin.repository import CONFIG_NAME, Repository

    if source.is_dir() and not (source / "model.onnx").exists():
        folder = source.resolve()
        is_model = (folder / CONFIG_NAME).exists() or any(
            e.name.isdigit() for e in folder.iterdir()
        )
        if is_model:
            return Repository(folder.parent).model(folder.name).model_file()
    return source


def _sizes(dims: list[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for text in dims:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) == 0:
            raise InputError(f"--dim {text}: must be NAME=SIZE, with a whole size above 0.")
        sizes[name] = int(size)
    return sizes


def _facts(model: ir.Model, path: Path, sizes: dict[str, int], *, try_fuse: bool) -> dict[str, Any]:
    from trimton.transforms.graph.cost import model_cost, node_costs
    from trimton.transforms.graph.digest import model_digest
    from trimton.transforms.graph.quantised import quantised_nodes
    from trimton.transforms.graph.session import custom_operators

    cost, nodes = model_cost(model, sizes), node_costs(model, sizes)
    heaviest = sorted(nodes, key=lambda node: (node.macs or 0, node.parameters), reverse=True)
    facts: dict[str, Any] = {
        "path": str(path),
        "digest": model_digest(model),
        "opsets": dict(sorted(model.opset_imports.items())),
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "inputs": [_interface(value) for value in model.graph.inputs],
        "outputs": [_interface(value) for value in model.graph.outputs],
        "parameters": cost.parameters,
        "macs": cost.macs,
        "size_bytes": cost.size_bytes,
        "nodes": cost.nodes,
        "operators": dict(Counter(node.op_type for node in nodes).most_common()),
        "heaviest_nodes": [
            {"name": n.name, "op_type": n.op_type, "macs": n.macs, "parameters": n.parameters}
            for n in heaviest[:_HEAVIEST]
            if n.macs
        ],
        "quantised_nodes": len(quantised_nodes(model)),
        "custom_operators": list(custom_operators(model)),
    }
    if try_fuse:
        from trimton.transforms.fuse import fuse

        facts["fuse"] = fuse(model)[1].to_json()
    return facts


def _interface(value: ir.Value) -> dict[str, Any]:
    shape = (
        None
        if value.shape is None
        else [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    )
    return {"name": value.name, "type": _type_text(value), "shape": shape}


def _type_text(value: ir.Value) -> str:
    from trimton.transforms.graph.inputs import tensor_type

    dtype = tensor_type(value)
    if dtype is None:
        return str(value.type)
    return "string" if dtype.kind == "O" else dtype.name


def _show(facts: dict[str, Any]) -> None:
    screen = console()
    opsets = ", ".join(f"{name or 'ai.onnx'} {v}" for name, v in facts["opsets"].items())
    screen.print(facts["path"], soft_wrap=True)
    screen.print(f"opset {opsets}; IR {facts['ir_version']}; made by {facts['producer'] or '?'}")
    screen.print(f"digest {facts['digest']}", soft_wrap=True)
    for role in ("inputs", "outputs"):
        for entry in facts[role]:
            shape = entry["shape"]
            dims = "?" if shape is None else ", ".join("?" if d is None else str(d) for d in shape)
            screen.print(f"{role[:-1]:<7} {entry['name']}  {entry['type']}[{dims}]", markup=False)
    screen.print(
        f"\n{count_text(facts['parameters'])} parameters, {count_text(facts['macs'])} "
        f"multiply-accumulates, {size_text(facts['size_bytes'])}, {facts['nodes']} nodes"
    )
    operators = ", ".join(f"{name} {count}" for name, count in facts["operators"].items())
    screen.print(f"operators: {operators}")
    quantised = facts["quantised_nodes"]
    screen.print(f"quantised: {f'yes, {quantised} nodes' if quantised else 'no'}")
    if facts["custom_operators"]:
        screen.print(f"custom operators: {', '.join(facts['custom_operators'])}")
    if facts["heaviest_nodes"]:
        screen.print(_heaviest(facts))
    if "fuse" in facts:
        _show_fuse(facts["fuse"])
    if "prunable" in facts:
        from trimton.plugin.cli.prunable import show_prunable

        show_prunable(facts["prunable"])


def _heaviest(facts: dict[str, Any]) -> Table:
    table = Table("\nheaviest nodes", "\noperator", "\nMACs", "\nshare", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    total = facts["macs"]
    for node in facts["heaviest_nodes"]:
        share = f"{node['macs'] / total:.1%}" if total else ""
        table.add_row(node["name"], node["op_type"], count_text(node["macs"]), share)
    return table


def _show_fuse(report: dict[str, Any]) -> None:
    screen = console()
    nodes = report["nodes"]
    if not report["changed"]:
        screen.print("\ntrimton fuse would change nothing")
        return
    screen.print(f"\ntrimton fuse would leave {nodes['after']} of {nodes['before']} nodes:")
    for step in report["steps"]:
        screen.print(f"  {step['count']:>5} × {step['what']}")
