"""LSTM, GRU and RNN: torch's own kernels where they compute the same, else step by step.

ONNX orders the gates i o f c (LSTM) and z r h (GRU); torch orders them i f g o and r z n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.table import Builder

Activation = Callable[[Tensor], Tensor]
# What one direction carries from step to step: the hidden state, and for LSTM the cell.
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State], State]


@dataclass(frozen=True)
class Direction:
    """The weights of one direction: W [gates*H, I], R [gates*H, H], biases [gates*H], P [3*H]."""

    weight: Tensor
    recurrence: Tensor
    input_bias: Tensor
    hidden_bias: Tensor
    peepholes: Tensor | None


@dataclass(frozen=True)
class Kind:
    """One recurrent operator: its default activations, its gates and the step of its cell."""

    activations: tuple[str, ...]
    gates: int
    states: int
    cell: Callable[[Direction, Sequence[Activation], NodeView], Cell]
    fused: Callable[[Tensor, list[Tensor], State, bool], State] | None
    torch_order: tuple[int, ...]


def _clipped(view: NodeView) -> Activation:
    bound = view.number("clip", 0.0)
    return (lambda x: x.clamp(-bound, bound)) if bound else (lambda x: x)


def _lstm_cell(weights: Direction, functions: Sequence[Activation], view: NodeView) -> Cell:
    gate, candidate, output = functions
    clip, couples = _clipped(view), view.flag("input_forget")
    bias = weights.input_bias + weights.hidden_bias
    peep = (None,) * 3 if weights.peepholes is None else weights.peepholes.chunk(3)

    def seen(x: Tensor, through: Tensor | None, cell: Tensor) -> Tensor:
        return clip(x if through is None else x + through * cell)

    def step(x: Tensor, state: State) -> State:
        hidden, cell = state
        i, o, f, c = (x + F.linear(hidden, weights.recurrence) + bias).chunk(4, -1)
        i = gate(seen(i, peep[0], cell))
        f = 1 - i if couples else gate(seen(f, peep[2], cell))
        cell = f * cell + i * candidate(clip(c))
        o = gate(seen(o, peep[1], cell))
        return o * output(cell), cell

    return step


def _gru_cell(weights: Direction, functions: Sequence[Activation], view: NodeView) -> Cell:
    gate, candidate = functions
    clip, is_late = _clipped(view), view.flag("linear_before_reset")
    input_bias = weights.input_bias.chunk(3)
    recurrence, hidden_bias = weights.recurrence.chunk(3), weights.hidden_bias.chunk(3)

    def step(x: Tensor, state: State) -> State:
        (hidden,) = state
        x_z, x_r, x_h = (a + b for a, b in zip(x.chunk(3, -1), input_bias, strict=True))
        z = gate(clip(x_z + F.linear(hidden, recurrence[0], hidden_bias[0])))
        r = gate(clip(x_r + F.linear(hidden, recurrence[1], hidden_bias[1])))
        if is_late:
            past = r * F.linear(hidden, recurrence[2], hidden_bias[2])
        else:
            past = F.linear(r * hidden, recurrence[2], hidden_bias[2])
        return ((1 - z) * candidate(clip(x_h + past)) + z * hidden,)

    return step


def _rnn_cell(weights: Direction, functions: Sequence[Activation], view: NodeView) -> Cell:
    (activation,) = functions
    clip, bias = _clipped(view), weights.input_bias + weights.hidden_bias

    def step(x: Tensor, state: State) -> State:
        (hidden,) = state
        return (activation(clip(x + F.linear(hidden, weights.recurrence) + bias)),)

    return step


def _fused_lstm(x: Tensor, flat: list[Tensor], state: State, is_both: bool) -> State:
    made = torch._VF.lstm(x, list(state), flat, True, 1, 0.0, False, is_both, False)
    return tuple(made)


def _fused_gru(x: Tensor, flat: list[Tensor], state: State, is_both: bool) -> State:
    return tuple(torch._VF.gru(x, state[0], flat, True, 1, 0.0, False, is_both, False))


_KINDS: Mapping[str, Kind] = {
    "GRU": Kind(("Sigmoid", "Tanh"), 3, 1, _gru_cell, _fused_gru, (1, 0, 2)),
    "LSTM": Kind(("Sigmoid", "Tanh", "Tanh"), 4, 2, _lstm_cell, _fused_lstm, (0, 2, 3, 1)),
    "RNN": Kind(("Tanh",), 1, 1, _rnn_cell, None, (0,)),
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    """One of ONNX's activations of recurrent operators, with its own defaults."""

    def or_else(value: float | None, default: float) -> float:
        return default if value is None else value

    return {
        "affine": lambda x: or_else(alpha, 1.0) * x + or_else(beta, 0.0),
        "elu": lambda x: F.elu(x, or_else(alpha, 1.0)),
        "hardsigmoid": lambda x: (or_else(alpha, 0.2) * x + or_else(beta, 0.5)).clamp(0.0, 1.0),
        "leakyrelu": lambda x: F.leaky_relu(x, or_else(alpha, 0.01)),
        "relu": torch.relu,
        "scaledtanh": lambda x: or_else(alpha, 1.0) * torch.tanh(or_else(beta, 1.0) * x),
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "softsign": F.softsign,
        "tanh": torch.tanh,
        "thresholdedrelu": lambda x: F.threshold(x, or_else(alpha, 1.0), 0.0),
    }[name.lower()]


def recurrent(view: NodeView) -> Kernel:
    """X [S, B, I] -> Y [S, D, B, H], last states [D, B, H]; with ``layout`` 1 batch first."""
    kind = _KINDS[view.node.op_type]
    direction = view.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    names = view.texts("activations") or list(kind.activations) * directions
    functions = _functions(names, view)
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
                weight[d],
                recurrence[d],
                *bias[d].chunk(2),
                None if peepholes is None else peepholes[d],
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


def _functions(names: Sequence[str], view: NodeView) -> list[Activation]:
    """The activations in order; each takes the next numbers only where ONNX gives it any."""
    alphas, betas = (
        iter(view.numbers("activation_alpha") or []),
        iter(view.numbers("activation_beta") or []),
    )
    made: list[Activation] = []
    for name in names:
        takes = name.lower()
        alpha = next(alphas, None) if takes in _WITH_ALPHA else None
        beta = next(betas, None) if takes in _WITH_BETA else None
        made.append(_activation(name, alpha, beta))
    return made


_WITH_ALPHA = frozenset(
    {"affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu"}
)
_WITH_BETA = frozenset({"affine", "hardsigmoid", "scaledtanh"})


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


OPERATORS: Mapping[tuple[str, str], Builder] = {("", name): recurrent for name in _KINDS}
