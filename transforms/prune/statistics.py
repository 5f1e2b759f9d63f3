"""BatchNormalization statistics estimated anew: what a cut does to means and variances.

A cut moves the distribution of what a BatchNormalization reads, so that it no longer normalises.
Its running mean and variance are changed so that what it makes has the mean and the variance, on
the calibration samples, which it had in the original network: with the original's moments m and
the cut one's m', var' + e = (var + e) s' / s and mean' = m' - (m - mean) sqrt((var' + e) /
(var + e)). Where samples are typical, that is the mean and variance of the cut network itself;
where they are few, their own deviation cancels. Layer by layer in the order of the network, exact
over all samples (Li et al., 2020, "EagleEye", on why a pruned network needs this).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant_array
from trimton.transforms.prune.refit.frontier import Frontier
from trimton.transforms.prune.rewrites import Kept

_MEAN, _VARIANCE = 3, 4
# Below this share of its running variance, a channel is taken for constant on the samples.
_CONSTANT = 1e-6
# Moments that moved by less, in standard deviations, differ by rounding.
_UNCHANGED = 1e-4


@dataclass(frozen=True)
class NormalisationSite:
    """A BatchNormalization, which of its channels stay [channels], and how many stand before it.

    ``depth`` is the largest number of BatchNormalizations on a way from the inputs to it: those
    of one depth can be estimated in one pass.
    """

    node: ir.Node
    is_kept: Array
    depth: int

    @property
    def read(self) -> str:
        """The name of the value that is normalised."""
        value = self.node.inputs[0]
        return "" if value is None else value.name or ""


@dataclass(frozen=True)
class Reestimate:
    """What changed in one BatchNormalization: means over its channels.

    ``mean_shift`` is |mean' - mean| in standard deviations, ``variance_ratio`` var' / var.
    """

    name: str
    mean_shift: float
    variance_ratio: float


@dataclass(frozen=True)
class _Moments:
    """Mean and variance of each channel, [channels]."""

    mean: Array
    variance: Array


def normalisation_sites(model: ir.Model, kept: Kept) -> tuple[NormalisationSite, ...]:
    """The BatchNormalizations of ``model``, on which ``kept`` was found, in order; before the cut.

    Left out are those whose statistics are computed, that are in training mode, or that read an
    input of the model.
    """
    depths: dict[int, int] = {}
    sites: list[NormalisationSite] = []
    for node in model.graph:
        before = max((depths.get(id(value), 0) for value in node.inputs), default=0)
        is_normalisation = node.op_type == "BatchNormalization" and not node.domain
        for output in node.outputs:
            depths[id(output)] = before + is_normalisation
        if is_normalisation and _can_change(node):
            sites.append(NormalisationSite(node, kept.mask(node.inputs[_MEAN], 0), before))
    return tuple(sorted(sites, key=lambda site: site.depth))


def reestimate(
    original: ir.Model,
    pruned: ir.Model,
    sites: Sequence[NormalisationSite],
    samples: Mapping[str, Array],
) -> tuple[Reestimate, ...]:
    """Change the statistics of ``sites``, nodes of ``pruned``, in place, by ``samples``.

    What the samples do not show to have changed is left out. Memory is bounded, whatever the
    number of samples. Raises InputError where the models cannot be run on ``samples``.
    """
    return tuple(_reestimates(original, pruned, sites, samples)) if sites else ()


def _can_change(node: ir.Node) -> bool:
    read = node.inputs[0]
    return (
        read is not None
        and read.producer() is not None
        and all(constant_array(node.inputs[index]) is not None for index in (_MEAN, _VARIANCE))
        and not node.attributes.get_int("training_mode", 0)
    )


def _reestimates(
    original: ir.Model,
    pruned: ir.Model,
    sites: Sequence[NormalisationSite],
    samples: Mapping[str, Array],
) -> Iterator[Reestimate]:
    editor = Editor(pruned)
    reference = _moments(Frontier(original, samples), [site.read for site in sites])
    network = Frontier(pruned, samples)
    left = {site.node.outputs[0].name or "" for site in sites}
    for _, level in groupby(sites, key=lambda site: site.depth):
        portion = list(level)
        network.settle(left)
        left -= {site.node.outputs[0].name or "" for site in portion}
        current = _moments(network, [site.read for site in portion])
        for site in portion:
            done = _change(site, reference[site.read], current[site.read], editor)
            if done is not None:
                yield done


def _change(
    site: NormalisationSite, whole: _Moments, now: _Moments, editor: Editor
) -> Reestimate | None:
    node = site.node
    mean, variance = constant_array(node.inputs[_MEAN]), constant_array(node.inputs[_VARIANCE])
    if mean is None or variance is None:
        raise ValueError("the statistics are no constants")
    epsilon = node.attributes.get_float("epsilon", 1e-5) or 0.0
    old_mean, old_spread = whole.mean[site.is_kept], whole.variance[site.is_kept]
    spread = variance.astype(np.float64) + epsilon
    moved = np.abs(now.mean - old_mean) + np.abs(np.sqrt(now.variance) - np.sqrt(old_spread))
    if np.all(moved < _UNCHANGED * np.sqrt(spread)):
        return None
    varies = np.minimum(old_spread, now.variance) > _CONSTANT * spread
    ratio = np.where(varies, now.variance, 1.0) / np.where(varies, old_spread, 1.0)
    new_mean = now.mean - (old_mean - mean) * np.sqrt(ratio)
    new_variance = np.maximum(spread * ratio - epsilon, 0.0)
    for index, array, old in ((_MEAN, new_mean, mean), (_VARIANCE, new_variance, variance)):
        editor.set_constant(node, index, array.astype(old.dtype), "statistic")
    return Reestimate(
        node.name or node.outputs[0].name or "",
        float(np.mean(np.abs(new_mean - mean) / np.sqrt(spread))),
        float(np.mean(ratio)),
    )


def _moments(network: Frontier, names: Sequence[str]) -> dict[str, _Moments]:
    """By name the moments over all axes but the second, summed around the first batch's means."""
    centres: dict[str, Array] = {}
    sums: dict[str, Array] = {}
    counts = dict.fromkeys(names, 0)
    for values in network.run(names):
        for name, array in values.items():
            channels = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
            centre = centres.setdefault(name, channels.mean(axis=1, keepdims=True))
            moved = channels - centre
            part = np.stack(
                [
                    moved.sum(axis=1, dtype=np.float64),
                    np.einsum("ij,ij->i", moved, moved, dtype=np.float64),
                ]
            )
            sums[name] = part if name not in sums else sums[name] + part
            counts[name] += channels.shape[1]
    made: dict[str, _Moments] = {}
    for name, (total, squares) in sums.items():
        offset = total / counts[name]
        mean = centres[name][:, 0].astype(np.float64) + offset
        made[name] = _Moments(mean, np.maximum(squares / counts[name] - offset**2, 0.0))
    return made
