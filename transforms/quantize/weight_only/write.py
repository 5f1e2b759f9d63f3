"""Writing blocks of integers into a graph: MatMulNBits and GatherBlockQuantized.

Source: ONNX Runtime, operators com.microsoft.MatMulNBits and com.microsoft.GatherBlockQuantized.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.quantize.products import Product, Site, Table
from trimton.transforms.quantize.weight_only.blocks import BlockFormat, Blocks
from trimton.transforms.quantize.weight_only.packing import pack

DOMAIN = "com.microsoft"
# MatMulNBits: what the kernel may make of the numbers it reads.
_ACCURACY_LEVELS = {"float32": 0, "int8": 4}


def packed_constants(blocks: Blocks, form: BlockFormat, *, is_table: bool) -> tuple[Array, ...]:
    """Integers, scales and, where the format has them, zero points as the operators take them.

    Integers of a product are [outputs, blocks, bytes of a block], of a table [rows, bytes].
    """
    count = len(blocks.integers)
    if is_table:
        flat = blocks.integers.reshape(count, -1)[:, : blocks.terms]
        integers = pack(flat, form.bits)
    else:
        integers = pack(blocks.integers, form.bits)
    constants = (integers, blocks.scales)
    return constants if form.is_symmetric else (*constants, pack(blocks.zero_points, form.bits))


class Writer:
    """Replaces nodes of the editor's model, in place; a weight that several read is stored once."""

    def __init__(self, editor: Editor, form: BlockFormat, compute: str) -> None:
        self._editor, self._form, self._level = editor, form, _ACCURACY_LEVELS[compute]
        self._written: dict[tuple[object, ...], list[ir.Value]] = {}

    def write(self, site: Site, blocks: Blocks) -> ir.Node:
        """Store ``blocks`` in place of the weight of ``site``; gives the new node."""
        self._editor.model.opset_imports.setdefault(DOMAIN, 1)
        weights = self._weights(site, blocks)
        new = (
            self._product(site, weights, blocks.terms, len(blocks.scales))
            if isinstance(site, Product)
            else self._table(site, weights)
        )
        old = site.node.outputs[0]
        output = new.outputs[0]
        output.type, output.shape = old.type, old.shape
        name = old.name
        graph = _graph_of(site.node)
        graph.insert_before(site.node, new)
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        graph.remove(site.node, safe=True)
        output.name = name
        return new

    def _product(
        self, site: Product, weights: Sequence[ir.Value], terms: int, outputs: int
    ) -> ir.Node:
        inputs: list[ir.Value | None] = [site.node.inputs[0], *weights]
        if site.bias is not None:
            inputs += [None] * (5 - len(inputs))
            graph = _graph_of(site.node)
            inputs.append(self._editor.add_constant(graph, f"{site.name}_bias", site.bias))
        attributes = {
            "K": terms,
            "N": outputs,
            "bits": self._form.bits,
            "block_size": self._form.block,
            "accuracy_level": self._level,
        }
        return self._node("MatMulNBits", site, inputs, attributes)

    def _table(self, site: Table, weights: Sequence[ir.Value]) -> ir.Node:
        integers, *others = weights
        attributes = {
            "bits": self._form.bits,
            "block_size": self._form.block,
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        inputs = [integers, site.node.inputs[1], *others]
        return self._node("GatherBlockQuantized", site, inputs, attributes)

    def _node(
        self,
        op_type: str,
        site: Site,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, int],
    ) -> ir.Node:
        return ir.Node(
            DOMAIN,
            op_type,
            inputs,
            [ir.AttrInt64(name, value) for name, value in attributes.items()],
            name=site.node.name,
            num_outputs=1,
        )

    def _weights(self, site: Site, blocks: Blocks) -> list[ir.Value]:
        """The constants of ``blocks``, beside the float weight that they stand for."""
        key = (site.weight, type(site), *_variant(site))
        if key not in self._written:
            hint = site.weight.name or site.name
            graph = site.weight.graph
            if not isinstance(graph, ir.Graph):
                raise ValueError(f"{hint} belongs to no graph")
            names = (f"{hint}_q{self._form.bits}", f"{hint}_scales", f"{hint}_zero_points")
            constants = packed_constants(blocks, self._form, is_table=isinstance(site, Table))
            self._written[key] = [
                self._editor.add_constant(graph, name, array)
                for name, array in zip(names, constants, strict=False)
            ]
        return self._written[key]


def _variant(site: Site) -> tuple[object, ...]:
    """What besides the float weight decides about the integers of ``site``.

    Integers rounded for what one product multiplies serve others, too, that read the same weight.
    """
    return (site.is_transposed, site.factor) if isinstance(site, Product) else ()


def _graph_of(node: ir.Node) -> ir.Graph:
    if not isinstance(node.graph, ir.Graph):
        raise ValueError(f"{node.name} belongs to no graph")
    return node.graph
