"""Tuning one unit: steps along the gradient of its output error, then a judgement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.optim import Adam

from trimton.transforms.distill.feeds import feeds_of
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.reconstruct.evidence import Evidence
from trimton.transforms.distill.reconstruct.parameters import UnitParameters
from trimton.transforms.distill.reconstruct.rounding import sharpness_at
from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
from trimton.transforms.distill.teacher import Answers
from trimton.transforms.graph.edit import Array

# The share of the steps before roundings are pushed to either side, and how hard they are then,
# beside an error that nearest rounding makes 1.
_FREE, _FORCE = 0.2, 0.5
_SMALLEST = 1e-12


def tune(
    part: ir.Model,
    parameters: UnitParameters,
    evidence: Evidence,
    settings: ReconstructSettings,
    number: int,
) -> None:
    """Take the steps of unit ``number``, whose graph is ``part``; ``parameters`` learn.

    The error is a share of the one that the unit makes as it is. Rates stay, as in AdaRound: what
    slows down towards the end leaves roundings undecided.
    """
    module = OnnxModule(part, batch_norm="frozen")
    module.requires_grad_(False)
    replace = parameters.replacements()
    targets = tuple(evidence.goals)
    optimiser = Adam(parameters.groups(settings.steps))
    rng = np.random.default_rng((settings.seed, number))
    with torch.no_grad():
        reads, goals = _batch(evidence, rng, settings.batch)
        before = float(_error(module(reads, targets), goals))
    for step in range(settings.steps):
        reads, goals = _batch(evidence, rng, settings.batch)
        loss = _error(module(reads, targets, replace=replace), goals) / max(before, _SMALLEST)
        share = (step / settings.steps - _FREE) / (1 - _FREE)
        if share >= 0:
            loss = loss + _FORCE * parameters.undecided(sharpness_at(share))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()


def held_out_error(part: ir.Model, evidence: Evidence, threads: int) -> float:
    """The squared error of the targets on the samples that judge, as a share of their variance.

    ``part`` runs in ONNX Runtime, with the kernels that will serve it.
    """
    ask = Answers(part, evidence.goals, threads=threads)
    made = ask({name: array[evidence.tuned :] for name, array in evidence.reads.items()})
    return relative_error(made, {n: a[evidence.tuned :] for n, a in evidence.goals.items()})


def relative_error(made: Mapping[str, Array], goals: Mapping[str, Array]) -> float:
    """The mean over values of the squared error, as a share of the variance of the goal."""
    shares = [
        float(np.square(made[name] - goal, dtype=np.float64).mean())
        / max(float(goal.var(dtype=np.float64)), _SMALLEST)
        for name, goal in goals.items()
    ]
    return float(np.mean(shares))


def _error(made: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(
        [
            torch.nn.functional.mse_loss(made[n], goal) / goal.var().clamp_min(_SMALLEST)
            for n, goal in goals.items()
        ]
    ).mean()


def _batch(
    evidence: Evidence, rng: np.random.Generator, size: int
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    chosen = np.sort(rng.choice(evidence.tuned, min(size, evidence.tuned), replace=False))
    reads = feeds_of({name: array[chosen] for name, array in evidence.reads.items()})
    return reads, feeds_of({name: array[chosen] for name, array in evidence.goals.items()})
