"""One step of LSTM, GRU and RNN, as ONNX defines it, with every choice of activations.

ONNX orders the gates i o f c (LSTM) and z r h (GRU); torch orders them i f g o and r z n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import NodeView

Activation = Callable[[Tensor], Tensor]
# What one direction carries from step to step: the hidden state, and for LSTM the cell.
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State], State]


@dataclass(frozen=True)
class Direction:
    """The weights of one direction: W [gates*H, I], R [gates*H, H], B [2*gates*H], P [3*H]."""

    weight: Tensor
    recurrence: Tensor
    bias: Tensor
    peepholes: Tensor | None

    @property
    def input_bias(self) -> Tensor:
        """What is added to the projected input: [gates*H]."""
        return self.bias.chunk(2)[0]

    @property
    def hidden_bias(self) -> Tensor:
        """What is added to the projected state: [gates*H]."""
        return self.bias.chunk(2)[1]


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


KINDS: Mapping[str, Kind] = {
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


def activations_of(names: Sequence[str], view: NodeView) -> list[Activation]:
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
