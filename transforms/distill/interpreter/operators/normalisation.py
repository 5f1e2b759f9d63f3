"""Normalisation by statistics of the batch, of an instance, of a layer or of neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.table import Builder


def batch_normalization(view: NodeView) -> Kernel:
    """X [N, C, ...], scale, B, mean, var [C] (Ioffe and Szegedy, 2015).

    With batch statistics the running ones are updated in place, as torch does.
    """
    epsilon = view.number("epsilon", 1e-5)
    momentum = 1.0 - view.number("momentum", 0.9)
    if view.flag("training_mode"):
        return _training_form(epsilon, momentum)
    from_batch = view.uses_batch_statistics

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, shift, from_batch, momentum, epsilon)

    return run


def _training_form(epsilon: float, momentum: float) -> Kernel:
    """A node that always looks at the batch; the new running statistics are outputs of it."""

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Results:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        y = F.batch_norm(x, None, None, scale, shift, True, momentum, epsilon)
        seen = x.detach()
        new_mean = torch.lerp(mean, seen.mean(axes), momentum)
        return y, new_mean, torch.lerp(variance, seen.var(axes, correction=0), momentum)

    return run


def instance_normalization(view: NodeView) -> Kernel:
    """X [N, C, ...], scale and B [C]."""
    epsilon = view.number("epsilon", 1e-5)
    return lambda x, scale, shift: F.instance_norm(x, weight=scale, bias=shift, eps=epsilon)


def layer_normalization(view: NodeView) -> Kernel:
    """X normalised over ``axis`` and all that follow (Ba et al., 2016)."""
    axis, epsilon = view.integer("axis", -1), view.number("epsilon", 1e-5)
    wants_statistics = view.wants(1) or view.wants(2)

    def run(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Results:
        shape = x.shape[axis % x.ndim :]
        if (
            not wants_statistics
            and scale.shape == shape
            and (shift is None or shift.shape == shape)
        ):
            return F.layer_norm(x, shape, scale, shift, epsilon)
        axes = list(range(axis % x.ndim, x.ndim))
        mean = x.mean(axes, keepdim=True)
        inverse = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon)
        y = (x - mean) * inverse * scale
        return (y if shift is None else y + shift), mean, inverse

    return run


def rms_normalization(view: NodeView) -> Kernel:
    """X by its root mean square over ``axis`` and all that follow (Zhang and Sennrich, 2019)."""
    axis, epsilon = view.integer("axis", -1), view.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = list(range(axis % x.ndim, x.ndim))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale

    return run


def group_normalization(view: NodeView) -> Kernel:
    """X [N, C, ...] normalised by group of channels (Wu and He, 2018).

    Scale and bias are by channel; before operator set 21 they were by group.
    """
    groups, epsilon = view.integer("num_groups", 1), view.number("epsilon", 1e-5)
    is_by_group = view.opset < 21

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if is_by_group:
            repeats = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(repeats), shift.repeat_interleave(repeats)
        return F.group_norm(x, groups, scale, shift, epsilon)

    return run


def local_response_normalization(view: NodeView) -> Kernel:
    """X [N, C, ...] divided by a power of the neighbouring channels (Krizhevsky et al., 2012)."""
    size, bias = view.integer("size", 1), view.number("bias", 1.0)
    alpha, beta = view.number("alpha", 1e-4), view.number("beta", 0.75)

    def run(x: Tensor) -> Tensor:
        squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        padded = F.pad(squares, (0, 0, (size - 1) // 2, size // 2))
        means = F.avg_pool2d(padded, (size, 1), stride=1).reshape(x.shape)
        return x / (bias + alpha * means) ** beta

    return run


def lp_normalization(view: NodeView) -> Kernel:
    """X divided by its 1- or 2-norm along an axis."""
    axis, p = view.integer("axis", -1), view.integer("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return run


def mean_variance_normalization(view: NodeView) -> Kernel:
    """(X - mean) / deviation over the axes given."""
    axes = view.integers("axes") or [0, 2, 3]

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "BatchNormalization"): batch_normalization,
    ("", "GroupNormalization"): group_normalization,
    ("", "InstanceNormalization"): instance_normalization,
    ("", "LRN"): local_response_normalization,
    ("", "LayerNormalization"): layer_normalization,
    ("", "LpNormalization"): lp_normalization,
    ("", "MeanVarianceNormalization"): mean_variance_normalization,
    ("", "RMSNormalization"): rms_normalization,
}
