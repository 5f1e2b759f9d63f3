"""LSTM, GRU and RNN: torch's own kernels where they compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.recurrent_cells import (
    KINDS,
    Cell,
    Direction,
    Kind,
    State,
    activations_of,
)
from trimton.transforms.distill.interpreter.operators.table import Builder


def recurrent(view: NodeView) -> Kernel:
    """X [S, B, I] -> Y [S, D, B, H], last states [D, B, H]; with ``layout`` 1 batch first."""
    kind = KINDS[view.node.op_type]
    direction = view.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    names = view.texts("activations") or list(kind.activations) * directions
    functions = activations_of(names, view)
    batch_first = view.flag("layout")
    is_fused = _is_fused(kind, view, names, direction)

    def run(
        x: Tensor,
        weight: Tensor,
        recurrence: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        *rest: Tensor | None,
    ) -> Results:
        x = x.transpose(0, 1) if batch_first else x
        hidden = recurrence.shape[2]
        bias = x.new_zeros(directions, 2 * weight.shape[1]) if bias is None else bias
        given = (*rest, None, None, None)
        shape = (directions, x.shape[1], hidden)
        states = tuple(
            x.new_zeros(shape) if s is None else s.transpose(0, 1) if batch_first else s
            for s in given[: kind.states]
        )
        peepholes = given[kind.states] if kind.states == 2 else None
        weights = [
            Direction(
                weight[d], recurrence[d], bias[d], None if peepholes is None else peepholes[d]
            )
            for d in range(directions)
        ]
        if is_fused:
            made = _run_fused(kind, x, weights, states)
        else:
            size = len(kind.activations)
            cells = [
                kind.cell(w, functions[d * size : (d + 1) * size], view)
                for d, w in enumerate(weights)
            ]
            backwards = [direction == "reverse"] if directions == 1 else [False, True]
            made = _run_steps(x, weights, cells, backwards, states, lengths)
        if not batch_first:
            return made
        return (made[0].permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in made[1:]))

    return run


def _is_fused(kind: Kind, view: NodeView, names: Sequence[str], direction: str) -> bool:
    """Whether torch's own kernel computes the same."""
    return (
        kind.fused is not None
        and [n.lower() for n in names]
        == [n.lower() for n in kind.activations] * (len(names) // len(kind.activations))
        and direction != "reverse"
        and not view.number("clip", 0.0)
        and not view.flag("input_forget")
        and not view.has(4)
        and not view.has(7)
        and (view.node.op_type == "LSTM" or view.flag("linear_before_reset"))
    )


def _run_fused(
    kind: Kind, x: Tensor, weights: Sequence[Direction], states: State
) -> tuple[Tensor, ...]:
    flat = [
        torch.cat([tensor.chunk(kind.gates)[gate] for gate in kind.torch_order])
        for w in weights
        for tensor in (w.weight, w.recurrence, w.input_bias, w.hidden_bias)
    ]
    assert kind.fused is not None
    sequence, *last = kind.fused(x, flat, states, len(weights) == 2)
    steps, batch, _ = sequence.shape
    made = sequence.reshape(steps, batch, len(weights), -1).transpose(1, 2)
    return (made, *last)


def _run_steps(
    x: Tensor,
    weights: Sequence[Direction],
    cells: Sequence[Cell],
    backwards: Sequence[bool],
    states: State,
    lengths: Tensor | None,
) -> tuple[Tensor, ...]:
    sequences, last = [], []
    for d, (w, cell, turns) in enumerate(zip(weights, cells, backwards, strict=True)):
        state = tuple(s[d] for s in states)
        projected = F.linear(x, w.weight)
        order = range(len(x))
        made: list[Tensor] = [x.new_zeros(0)] * len(x)
        for step in reversed(order) if turns else order:
            moved = cell(projected[step], state)
            if lengths is None:
                state, made[step] = moved, moved[0]
                continue
            lives = (step < lengths)[:, None]
            state = tuple(torch.where(lives, n, o) for n, o in zip(moved, state, strict=True))
            made[step] = torch.where(lives, moved[0], torch.zeros_like(moved[0]))
        sequences.append(torch.stack(made))
        last.append(state)
    return (
        torch.stack(sequences, 1),
        *(torch.stack(parts) for parts in zip(*last, strict=True)),
    )


OPERATORS: Mapping[tuple[str, str], Builder] = {("", name): recurrent for name in KINDS}
