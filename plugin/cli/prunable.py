"""What ``trimton inspect --prunable`` says: groups of channels, what is frozen and why, blocks."""

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


def prunable_facts(model: ir.Model, path: Path, data: str | None = None) -> dict[str, Any]:
    """Groups, frozen layers and blocks of ``model``, read from ``path``, for machines.

    ``parameters`` and ``macs`` of a group are those of all its channels while every other group
    is whole; ``channels_at_once`` go together (a head, a channel of every group). ``damage`` is
    what the absence of a block alone does to the outputs on the samples of ``data``.
    """
    from trimton.transforms.prune import prunable

    try:
        found = prunable(model)
        blocks = _blocks(model, data)
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
        "blocks": blocks,
    }


def _blocks(model: ir.Model, data: str | None) -> list[dict[str, Any]]:
    from trimton.transforms.prune import blocks, ranked_blocks

    damages: list[float | None]
    if data is None:
        found = blocks(model)
        damages = [None] * len(found)
    else:
        from trimton.plugin.samples import load_samples
        from trimton.transforms.graph.inputs import input_specs

        ranked = ranked_blocks(model, load_samples(data, input_specs(model)).inputs)
        found = tuple(drop.block for drop in ranked)
        damages = [drop.damage for drop in ranked]
    return [
        {
            "name": block.name,
            "kind": block.kind,
            "layers": list(block.layers),
            "parameters": block.parameters,
            "macs": block.macs,
            "damage": damage,
        }
        for block, damage in zip(found, damages, strict=True)
    ]


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
    if facts["blocks"]:
        screen.print(_block_table(facts["blocks"]))


def _block_table(blocks: list[dict[str, Any]]) -> Table:
    is_measured = any(block["damage"] is not None for block in blocks)
    head = ["\nremovable block, up to", "\nkind", "\nparameters", "\nMACs"]
    table = Table(*head, *(["\ndamage"] if is_measured else []), box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for block in blocks:
        cells = [
            block["name"],
            block["kind"],
            count_text(block["parameters"]),
            count_text(block["macs"]),
        ]
        table.add_row(*cells, *([f"{block['damage']:.3g}"] if is_measured else []))
    return table


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
