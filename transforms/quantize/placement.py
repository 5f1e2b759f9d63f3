"""Placement: which nodes compute in integers, exactly the set that the target's kernels take."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import constant, input_at, only_consumer
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.quantize.clipping import absorbs
from trimton.transforms.quantize.joining import Joined, join, numbers
from trimton.transforms.quantize.refusals import small_product_refusal
from trimton.transforms.quantize.roles import Kernel, Role, weight_axis
from trimton.transforms.quantize.sharing import Sharing
from trimton.transforms.quantize.sites import Placement, WeightSite
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Skipped

_EXCLUDED = "excluded by name"
_CONTROL_FLOW = {"If": "control flow: its branches are quantised by themselves"}
_MENDS = {"BatchNormalization": "; fuse the model first, which folds it into the layer before"}
_NOT_BETWEEN = "it is not between 8-bit kernels, so in float it needs fewer conversions"


def place(model: ir.Model, target: Target, exclude: Collection[str] = ()) -> Placement:
    """What ``target`` computes in integers of the main graph of ``model``.

    Every node and value needs a name of its own, and values their types. ``exclude`` are names
    of nodes (``*`` matches any text) that stay in float; InputError for one that fits no node.
    """
    graph, excluded = model.graph, _excluded(model.graph, exclude)
    kernels: dict[ir.Node, Kernel] = {}
    reasons: dict[ir.Node, str] = {}
    for node in graph:
        reason = _EXCLUDED if node in excluded else _refusal(node, target)
        if reason is None:
            kernels[node] = target.kernels[node.op_type]
        else:
            reasons[node] = reason
    absorbable = {
        node
        for node in graph
        if node.op_type in target.absorbed and node not in excluded and absorbs(node)
    }
    joined = join(graph, kernels, absorbable)
    encoded = [value for node in graph for value in _encoded(node, kernels, joined)]
    dtypes = dict.fromkeys(encoded, target.activation)
    nodes = {*joined.roles, *joined.absorbed}
    return Placement(
        activations=Sharing(encoded, joined).sites(dtypes, target.symmetric),
        weights=_agreed(
            [site for node in joined.roles for site in _constants(node, kernels, joined, target)]
        ),
        nodes=frozenset(node.name or "" for node in nodes),
        skipped=tuple(
            Skipped(f"{node.op_type} {node.name}", reasons.get(node, _NOT_BETWEEN))
            for node in graph
            if node not in nodes
        ),
    )


def _refusal(node: ir.Node, target: Target) -> str | None:
    """Why ``target`` has no 8-bit kernel for ``node``; None if it has one."""
    kernel = None if node.domain else target.kernels.get(node.op_type)
    if subgraphs_of(node):
        return _CONTROL_FLOW.get(node.op_type, "control flow: its body stays in float")
    if kernel is None:
        hint = _MENDS.get(node.op_type, "")
        return f"{target.name} has no 8-bit kernel for it{hint}"
    if any(not _is_float(input_at(node, index)) for index in kernel.number_indices(node)):
        return "it does not compute on float32"
    return kernel.refusal(node) or _not_worth(node, target)


def _not_worth(node: ir.Node, target: Target) -> str | None:
    """Why ``target`` would take longer for ``node`` in integers than in float."""
    return small_product_refusal(node, target.least_product) if node.op_type == "MatMul" else None


def _encoded(node: ir.Node, kernels: dict[ir.Node, Kernel], joined: Joined) -> Iterator[ir.Value]:
    """The values that ``node`` reads or makes in integers."""
    role = joined.roles.get(node)
    if node in joined.absorbed:
        yield node.outputs[0]
    if role is None or role is Role.TABLE:
        return
    yield from (value for value in numbers(node, kernels[node]) if constant(value) is None)
    for output in node.outputs:
        if output in joined.integers and only_consumer(output) not in joined.absorbed:
            yield output


def _constants(
    node: ir.Node, kernels: dict[ir.Node, Kernel], joined: Joined, target: Target
) -> Iterator[WeightSite]:
    """The constants that ``node`` computes with in integers."""
    role, kernel, name = joined.roles[node], kernels[node], node.name or ""
    for value in numbers(node, kernel):
        tensor = constant(value)
        if tensor is None or role is Role.SCALE:
            continue
        label = value.name or ""
        if role is Role.TABLE:
            yield WeightSite(name, label, axis=1, dtype=ir.DataType.INT8)
        elif role is Role.LAYER:
            bias = None if kernel.bias is None else input_at(node, kernel.bias)
            source = node.inputs[0]
            yield WeightSite(
                layer=name,
                value=label,
                axis=weight_axis(node, len(tensor.shape)),
                dtype=ir.DataType.INT8,
                kernel=kernel.order_in(node) if target.saturates else None,
                activation=None if source is None else source.name,
                bias=None if bias is None else bias.name,
            )
        else:
            yield WeightSite(name, label, axis=None, dtype=target.activation, is_operand=True)


def _agreed(sites: list[WeightSite]) -> tuple[WeightSite, ...]:
    """``sites``, with one scale for a constant whose readers differ about its channels."""
    axes: dict[str, set[int | None]] = {}
    for site in sites:
        axes.setdefault(site.value, set()).add(site.axis)
    return tuple(
        replace(site, axis=site.axis if len(axes[site.value]) == 1 else None) for site in sites
    )


def _is_float(value: ir.Value | None) -> bool:
    if value is None:
        return False
    tensor = constant(value)
    return (value.dtype if tensor is None else tensor.dtype) == ir.DataType.FLOAT


def _excluded(graph: ir.Graph, patterns: Collection[str]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    for pattern in patterns:
        matching = {node for node in graph if fnmatchcase(node.name or "", pattern)}
        if not matching:
            raise InputError(f"no node is named {pattern!r}; take it out of the exclusions.")
        found |= matching
    return found
