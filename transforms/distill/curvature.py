"""Random gradients that know how sharply the outputs of a model react to its weights.

Where a model is compared with itself, the gradient of every loss is 0: what tells the effect of a
small change d of its weights is the curvature, d' J' H J d / 2, with J the outputs' derivatives and
H the Hessian of the loss by the outputs. A random vector r with covariance H at the outputs gives
by one backward pass J' r, whose covariance is that curvature, and needs no labels. For classes r is
what the loss of a label gives that is drawn from the model's own answer: the Fisher information
(Martens 2020, arXiv:1412.1193). For other outputs it is the same Gauss-Newton matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import sqrt

import onnx_ir as ir
import torch
from torch import Generator, Tensor

from trimton.transforms.distill.feeds import feeds_of
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.kinds import (
    CHANCES,
    DIRECTION,
    LOGITS,
    PROBABILITIES,
    ROBUST_VALUES,
    VALUES,
    output_kinds,
)
from trimton.transforms.distill.runtime import repeatable
from trimton.transforms.graph.edit import Array

_SMALLEST = 1e-7
# Batches are small: threads would only wait for one another.
_THREADS = 1


def _of_logits(logits: Tensor, random: Generator) -> Tensor:
    chances = logits.softmax(dim=-1)
    return chances - _drawn(chances, random)


def _of_probabilities(chances: Tensor, random: Generator) -> Tensor:
    inside = chances.clamp_min(_SMALLEST)
    return 1 - _drawn(inside, random) / inside


def _of_chances(chances: Tensor, random: Generator) -> Tensor:
    inside = chances.clamp(_SMALLEST, 1 - _SMALLEST)
    return (inside - torch.bernoulli(inside, generator=random)) / (inside * (1 - inside))


def _of_direction(vectors: Tensor, random: Generator) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(_SMALLEST)
    along, noise = vectors / length, _noise(vectors, random)
    across: Tensor = (noise - along * (along * noise).sum(dim=-1, keepdim=True)) / length
    return across


def _of_values(values: Tensor, random: Generator) -> Tensor:
    variance = values.var(correction=0).clamp_min(_SMALLEST**2)
    return _noise(values, random) * (2 / variance).sqrt()


# By kind of output: r for what the model gives [N, ...], with covariance H of the kind's loss,
# summed over all samples and places.
SCORES: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {
    LOGITS: _of_logits,
    PROBABILITIES: _of_probabilities,
    CHANCES: _of_chances,
    DIRECTION: _of_direction,
    VALUES: _of_values,
    ROBUST_VALUES: _of_values,
}
_ALONG_LAST_AXIS = frozenset({LOGITS, PROBABILITIES, DIRECTION})


def gradient_draws(
    model: ir.Model,
    weights: Collection[str],
    values: Collection[str],
    batches: Iterable[Mapping[str, Array]],
    *,
    seed: int,
) -> Iterator[dict[str, Array]]:
    """For each batch of inputs a draw of J' r for ``weights`` and other ``values``, by name.

    The mean over draws of (d' draw)^2 / 2 is what the change d costs: the mean loss of a sample,
    the mean over outputs. What no output depends on, and weights that do not learn, are left out.
    Running statistics stay those of the model, which is left as it is.

    Raises UnsupportedModelError where no gradient is known of an operator or no output is of
    floating point, InputError where the model cannot be run on a batch.
    """
    kinds = output_kinds(model, {})
    random = Generator().manual_seed(seed)
    with repeatable(_THREADS):
        module = OnnxModule(model, batch_norm="frozen", outputs=tuple(kinds)).eval()
        learnt = {name: weight for name, weight in module.weights() if name in weights}
        for batch in batches:
            made = module(feeds_of(batch), tuple(dict.fromkeys([*kinds, *values])))
            scores = [
                _score(made[name], kind, random) / sqrt(len(kinds)) for name, kind in kinds.items()
            ]
            sources = {name: made[name] for name in values if made[name].requires_grad} | learnt
            found = torch.autograd.grad(
                [made[name] for name in kinds], list(sources.values()), scores, allow_unused=True
            )
            yield {
                name: gradient.numpy()
                for name, gradient in zip(sources, found, strict=True)
                if gradient is not None
            }


def _score(output: Tensor, kind: str, random: Generator) -> Tensor:
    own = output.detach().float()
    counted = own[..., 0] if kind in _ALONG_LAST_AXIS else own
    scores = SCORES[kind](own, random).to(output.dtype)
    return scores / sqrt(counted.numel())


def _drawn(chances: Tensor, random: Generator) -> Tensor:
    """One class for each place, as 0 and 1 along the last axis."""
    rows = chances.reshape(-1, chances.shape[-1])
    chosen = torch.multinomial(rows, 1, generator=random)
    return torch.zeros_like(rows).scatter_(1, chosen, 1.0).reshape(chances.shape)


def _noise(like: Tensor, random: Generator) -> Tensor:
    return torch.randn(like.shape, generator=random)
