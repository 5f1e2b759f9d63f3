"""If, Loop and Scan: their bodies are programs of their own, or part of the plan.

A condition that is known when planning leaves one branch, which is planned as if it stood in the
place of the node. Any other is decided in each run; gradients follow what was really computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from torch import Tensor

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter.node import Kernel, Results, described

if TYPE_CHECKING:
    from trimton.transforms.distill.interpreter.trace import Trace

Call = tuple[Kernel, Sequence[ir.Value | None]]


def inline(node: ir.Node, trace: Trace) -> bool:
    """Plan the branch of an If whose condition is known in its place; False where it is not."""
    condition = node.inputs[0] if node.op_type == "If" else None
    if condition is None or not trace.is_known(condition):
        return False
    branch = _branches(node)[0 if bool(trace.value(condition)) else 1]
    trace.walk(branch)
    for output, value in zip(node.outputs, branch.outputs, strict=True):
        trace.alias(output, value)
    trace.show(node)
    return True


def kernel_of(node: ir.Node, trace: Trace) -> Call:
    """The function of a node with bodies, and the values that it is to be called with.

    Raises UnsupportedModelError for an operator other than If, Loop and Scan.
    """
    if node.op_type not in _BUILDERS:
        raise UnsupportedModelError(f"{described(node)} has no function here.")
    return _BUILDERS[node.op_type](node, trace)


def _if(node: ir.Node, trace: Trace) -> Call:
    branches = [trace.body(branch) for branch in _branches(node)]
    captured = list(dict.fromkeys(value for branch in branches for value in branch.sources))
    from_batch = trace.from_batch
    picks = [[captured.index(value) for value in branch.sources] for branch in branches]

    def run(condition: Tensor, *given: Tensor) -> Results:
        chosen = 0 if bool(condition) else 1
        read = [given[index] for index in picks[chosen]]
        return branches[chosen].run(read, from_batch=from_batch)

    return run, [node.inputs[0], *captured]


def _loop(node: ir.Node, trace: Trace) -> Call:
    """Carried values go round; each of the others is stacked, one a turn."""
    graph = node.attributes["body"].as_graph()
    body, from_batch = trace.body(graph), trace.from_batch
    captured = body.sources[len(graph.inputs) :]
    carried_count = len(graph.inputs) - 2
    inputs = [*node.inputs, *[None] * (2 + carried_count - len(node.inputs))]

    def run(limit: Tensor | None, condition: Tensor | None, *given: Tensor) -> Results:
        carried, outside = given[:carried_count], given[carried_count:]
        goes_on = condition is None or bool(condition)
        stacks: list[list[Tensor]] = [[] for _ in graph.outputs[1 + carried_count :]]
        turn = 0
        while goes_on and (limit is None or turn < int(limit)):
            now = (torch.tensor(turn), torch.tensor(goes_on))
            answer, *made = body.run([*now, *carried, *outside], from_batch=from_batch)
            carried, goes_on, turn = tuple(made[:carried_count]), bool(answer), turn + 1
            for stack, tensor in zip(stacks, made[carried_count:], strict=True):
                stack.append(tensor)
        return (*carried, *(_stacked(node, stack, 0) for stack in stacks))

    return run, [*inputs, *captured]


def _scan(node: ir.Node, trace: Trace) -> Call:
    """The body runs along an axis of each scanned input, as from operator set 9 on."""
    if trace.opsets.get("", 0) < 9:
        raise UnsupportedModelError(
            f"{described(node)} is of an operator set before 9; convert the model with "
            f"onnx.version_converter."
        )
    graph = node.attributes["body"].as_graph()
    body, from_batch = trace.body(graph), trace.from_batch
    captured = body.sources[len(graph.inputs) :]
    scanned = node.attributes["num_scan_inputs"].as_int()
    carried_count = len(graph.inputs) - scanned
    made_count = len(graph.outputs) - carried_count

    def listed(name: str, count: int) -> list[int]:
        return list(node.attributes.get_ints(name, []) or [0] * count)

    axes, turned = listed("scan_input_axes", scanned), listed("scan_input_directions", scanned)
    made_axes = listed("scan_output_axes", made_count)
    made_turned = listed("scan_output_directions", made_count)

    def run(*given: Tensor) -> Results:
        carried, sequences = given[:carried_count], given[carried_count : len(graph.inputs)]
        outside = given[len(graph.inputs) :]
        parts = [
            sequence.unbind(axis)[:: -1 if is_turned else 1]
            for sequence, axis, is_turned in zip(sequences, axes, turned, strict=True)
        ]
        stacks: list[list[Tensor]] = [[] for _ in range(made_count)]
        for now in zip(*parts, strict=True):
            made = body.run([*carried, *now, *outside], from_batch=from_batch)
            carried = tuple(made[:carried_count])
            for stack, tensor in zip(stacks, made[carried_count:], strict=True):
                stack.append(tensor)
        stacked = (
            _stacked(node, stack[:: -1 if is_turned else 1], axis)
            for stack, axis, is_turned in zip(stacks, made_axes, made_turned, strict=True)
        )
        return (*carried, *stacked)

    return run, [*node.inputs, *captured]


def _stacked(node: ir.Node, parts: Sequence[Tensor], axis: int) -> Tensor:
    if not parts:
        raise UnsupportedModelError(f"{described(node)} never ran its body.")
    return torch.stack(list(parts), axis)


def _branches(node: ir.Node) -> tuple[ir.Graph, ir.Graph]:
    return (
        node.attributes["then_branch"].as_graph(),
        node.attributes["else_branch"].as_graph(),
    )


_BUILDERS: Mapping[str, Callable[[ir.Node, Trace], Call]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}
