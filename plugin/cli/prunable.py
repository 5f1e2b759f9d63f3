"""What ``trimton inspect --prunable`` says: groups of channels, and what is frozen and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from trimton.core.errors import UnsupportedModelError
from trimton.perf.report.numbers import count_text
from trimton.plugin.cli.output import console

if TYPE_CHECKING:
    import onnx_ir as ir

_MANY_LAYERS = 3


def prunable_facts(model: ir.Model, path: Path) -> dict[str, Any]:
    """Groups and frozen layers of ``model``, read from ``path``, for machines.

    ``parameters`` and ``macs`` of a group are those of all its channels while every other group
    is whole; ``channels_at_once`` go together (a head, a channel of every group).
    """
    from trimton.transforms.prune import prunable

    try:
        found = prunable(model)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
    return {
        "groups": [
            {
                "name": group.name,
                "layers": list(group.layers),
                "channels": group.channels,
                "channels_at_once": group.width,
                "parameters": len(group.sets) * group.parameters,
                "macs": None if group.macs is None else len(group.sets) * group.macs,
                "shares_statistics": group.shares_statistics,
            }
            for group in found.groups
        ],
        "frozen": [
            {"name": layer.name, "channels": layer.channels, "why": layer.why}
            for layer in found.frozen
        ],
    }


def show_prunable(facts: dict[str, Any]) -> None:
    """Print what prunable_facts found, for people."""
    screen = console()
    if facts["groups"]:
        screen.print(_groups(facts["groups"]))
    else:
        screen.print("\nno channels can be removed")
    if any(group["shares_statistics"] for group in facts["groups"]):
        screen.print("* a normalisation runs over these channels: removing some changes the others")
    for layer in facts["frozen"]:
        screen.print(
            f"kept: {layer['name']} ({layer['channels']} channels), because {layer['why']}",
            soft_wrap=True,
            markup=False,
        )


def _groups(groups: list[dict[str, Any]]) -> Table:
    table = Table(
        "\nremovable channels of", "\ncount", "\nat once", "\nparameters", "\nMACs",
        box=None, pad_edge=False,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for group in groups:
        layers = group["layers"]
        more = len(layers) - _MANY_LAYERS
        names = ", ".join(layers[:_MANY_LAYERS]) + (f" and {more} more" if more > 0 else "")
        table.add_row(
            names + (" *" if group["shares_statistics"] else ""),
            str(group["channels"]),
            str(group["channels_at_once"]),
            count_text(group["parameters"]),
            count_text(group["macs"]),
        )
    return table
