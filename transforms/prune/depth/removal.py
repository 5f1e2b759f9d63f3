"""Removing a block: what it read takes the place of what it made, with a correction of the mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.prune.depth.blocks import Block
from trimton.transforms.prune.refit.taps import Taps

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv"})


@dataclass(frozen=True)
class Bypass:
    """Names of values: ``source`` takes the place of ``sink``, plus ``correction``.

    ``correction`` is what the block adds on average to each channel, in a shape that can be added.
    """

    source: str
    sink: str
    correction: Array


def bypasses(
    model: ir.Model, blocks: Sequence[Block], feeds: Iterable[Mapping[str, Array]]
) -> tuple[Bypass | None, ...]:
    """What would take the place of each of ``blocks``, with means over ``feeds``.

    Channels are axis 1 where the block convolves, else the last. None for a block whose free
    dimensions turn out to differ. Raises InputError where ``model`` cannot be run on ``feeds``.
    """
    ends = [(block.source.name or "", block.sink.name or "") for block in blocks]
    axes = [_channel_axis(block) for block in blocks]
    taps = Taps(model, [name for pair in ends for name in pair])
    sums: list[Array | None] = [np.zeros(())] * len(blocks)
    count = 0
    for feed in feeds:
        values = taps(feed)
        count += 1
        for number, ((source, sink), axis) in enumerate(zip(ends, axes, strict=True)):
            total = sums[number]
            if total is None or values[sink].shape != values[source].shape:
                sums[number] = None
                continue
            added = values[sink] - values[source]
            others = tuple(other for other in range(added.ndim) if other != axis % added.ndim)
            sums[number] = total + added.mean(axis=others, dtype=np.float64, keepdims=True)
    return tuple(
        None if total is None else Bypass(source, sink, (total / count).astype(np.float32)[0])
        for (source, sink), total in zip(ends, sums, strict=True)
    )


def remove_block(model: ir.Model, bypass: Bypass) -> None:
    """Let ``bypass`` take the place of its block in ``model``, in place.

    What is passed on keeps the name of the old sink, so that it can be compared with the original.
    """
    values = {value.name: value for node in model.graph for value in node.outputs}
    values.update((value.name, value) for value in model.graph.inputs)
    source, sink = values[bypass.source], values[bypass.sink]
    end = sink.producer()
    if end is None:
        raise ValueError("the sink is made by no node")
    editor = Editor(model)
    dtype = (sink.dtype or ir.DataType.FLOAT).numpy()
    correction = editor.add_constant(
        model.graph, f"{bypass.sink}_mean", bypass.correction.astype(dtype)
    )
    passed_on = ir.Value(name=bypass.sink, type=sink.type, shape=sink.shape)
    sink.name = editor.fresh_name(f"{bypass.sink}_removed")
    name = editor.fresh_name(f"{bypass.sink}_bypass")
    model.graph.insert_before(
        end, ir.node("Add", [source, correction], outputs=[passed_on], name=name)
    )
    sink.replace_all_uses_with(passed_on)
    RemoveUnusedNodesPass()(model)


def _channel_axis(block: Block) -> int:
    return 1 if any(node.op_type in _CONVOLUTIONS for node in block.nodes) else -1
