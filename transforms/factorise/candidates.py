"""What can be factorised: layers with a rank that saves work, and what each rank loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.factorise.spectrum import (
    Factors,
    Spectrum,
    factors,
    response_covariance,
    spectrum,
)
from trimton.transforms.graph.edit import Array, constant_array, input_at
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.shapes import bind_free_dims
from trimton.transforms.linear.evidence import response_moments
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers
from trimton.transforms.report import Skipped

Ranks = Mapping[str, int]  # by the name of the layer's output


@dataclass(frozen=True)
class Candidate:
    """A layer with its ``spectrum`` and ``mean`` response (without bias), and possible ``ranks``.

    ``places`` is how often its weights are applied to one sample; ``harm`` what the outputs of
    the model lose for each unit of the layer's own error.
    """

    layer: LinearLayer
    spectrum: Spectrum
    mean: Array
    ranks: tuple[int, ...]
    places: float
    harm: float = 1.0

    def macs(self, rank: int | None = None) -> float:
        """Multiply-accumulates of one sample, as it is or factorised."""
        return self.places * _macs(self.layer, rank)

    def loss(self, rank: int) -> float:
        """What the model loses by it."""
        return self.harm * self.spectrum.lost(rank)

    def factors(self, rank: int) -> Factors:
        """The layer as it is in the original, of this rank."""
        return factors(self.layer.matrices()[0], self.spectrum, rank, self.mean)


def find_candidates(
    work: ir.Model, samples: Mapping[str, Array], multiple: int, exclude: Sequence[str]
) -> tuple[tuple[Candidate, ...], tuple[Skipped, ...]]:
    """The layers of ``work`` that can be factorised, and every other one with the reason.

    Raises InputError for an exclusion of nothing, or where the model cannot be run on ``samples``.
    """
    found = find_linear_layers(work)
    names = [layer.name for layer in found.layers]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"exclusion {pattern!r}: excludes no layer; take it out.")
    skipped = list(found.skipped)
    layers: list[LinearLayer] = []
    for layer in found.layers:
        why = _why_not(layer, multiple, exclude)
        if why is None:
            layers.append(layer)
        else:
            skipped.append(Skipped(layer.name, why))
    places = _places(work, layers)
    moments = response_moments(work, layers, samples)
    candidates: list[Candidate] = []
    for layer, responses, count in zip(layers, moments, places, strict=True):
        covariance, mean = response_covariance(responses)
        ranks = possible_ranks(layer, multiple)
        candidates.append(Candidate(layer, spectrum(covariance), mean - _bias(layer), ranks, count))
    return tuple(candidates), tuple(skipped)


def possible_ranks(layer: LinearLayer, multiple: int) -> tuple[int, ...]:
    """The multiples with fewer multiply-accumulates than the layer has, ascending."""
    _, _, outputs = layer.shape
    return tuple(r for r in range(multiple, outputs, multiple) if _macs(layer, r) < _macs(layer))


def _macs(layer: LinearLayer, rank: int | None = None) -> int:
    """Multiply-accumulates for one place."""
    _, features, outputs = layer.shape
    return features * outputs if rank is None else rank * (features + outputs)


def _why_not(layer: LinearLayer, multiple: int, exclude: Sequence[str]) -> str | None:
    if any(fnmatchcase(layer.name, pattern) for pattern in exclude):
        return "excluded by name"
    if layer.groups > 1:
        return "a grouped convolution is left alone: its groups are small matrices already"
    if not possible_ranks(layer, multiple):
        return f"no rank that is a multiple of {multiple} saves multiply-accumulates"
    return None


def _places(work: ir.Model, layers: Sequence[LinearLayer]) -> tuple[float, ...]:
    """How often each layer's weights are applied to one sample; 1 where that is not known."""
    sized = work.clone()
    bind_free_dims(sized, {})
    twins = {node.outputs[0].name: node for node in sized.graph}
    macs = [node_macs(twins[layer.output]) or _macs(layer) for layer in layers]
    return tuple(count / _macs(layer) for count, layer in zip(macs, layers, strict=True))


def _bias(layer: LinearLayer) -> Array:
    """The constant that the node adds to its product, [outputs] or scalar; 0 where none is."""
    node = layer.layer.node
    bias = constant_array(input_at(node, 2))
    if bias is None or bias.size not in (1, layer.shape[-1]):
        return np.zeros(())
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    return bias.reshape(-1).astype(np.float64) * (1.0 if beta is None else beta)
