"""The optimisers by name, with weight decay on kernels and matrices alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from trimton.transforms.distill.settings import DistillSettings

_MOMENTUM = 0.9

_OPTIMISERS: Mapping[str, Callable[[list[dict[str, Any]], float], Optimizer]] = {
    "adamw": lambda groups, rate: AdamW(groups, lr=rate),
    "sgd": lambda groups, rate: SGD(groups, lr=rate, momentum=_MOMENTUM, nesterov=True),
}


def optimiser_of(module: nn.Module, settings: DistillSettings) -> Optimizer:
    """The optimiser of all parameters of ``module``.

    Biases, and scales and shifts of normalisations, are not shrunk: that would only weaken the
    fit (He et al. 2019, arXiv:1812.01187).
    """
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return _OPTIMISERS[settings.optimiser](filled, settings.highest_rate)
