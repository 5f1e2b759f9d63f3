"""From a placement to numbers: encodings of activations, integers of constants."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant_array
from trimton.transforms.quantize.bounds import rescaled, smallest_weight_scale, within
from trimton.transforms.quantize.calibration.histogram import Histogram, merged
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.ranges import RangeMethod, activation_encoding
from trimton.transforms.quantize.ranges.grid import range_encoding
from trimton.transforms.quantize.sites import Placement, WeightSite
from trimton.transforms.quantize.weights import encode_weight
from trimton.transforms.quantize.weights.pairs import PAIR_LIMIT

# Integers and encodings of weights by what they depend on: see constant_encodings.
KnownWeights = dict[tuple[str, int | None, str | None, bytes], tuple[Array, Encoding]]


def activation_encodings(
    placement: Placement, histograms: Mapping[str, Histogram], method: RangeMethod
) -> dict[str, Encoding]:
    """The encoding of every value of ``placement``, by name; one object for all of a site."""
    found: dict[str, Encoding] = {}
    for site in placement.activations:
        if site.source is not None:
            encoding = rescaled(found[site.source], site.factor)
        else:
            histogram = merged([histograms[name] for name in site.measured])
            encoding = within(activation_encoding(histogram, site, method), site.bounds)
        found.update(dict.fromkeys(site.values, encoding))
    return found


def constant_encodings(
    model: ir.Model,
    placement: Placement,
    encodings: Mapping[str, Encoding],
    known: KnownWeights,
) -> dict[str, tuple[Array, Encoding]]:
    """The integers of every constant of ``placement`` and their encoding, by name.

    A weight that layers share gets scales that suit the biases, and kernels, of all of them.
    ``known`` holds what was computed for other placements of ``model`` and is added to.
    """
    found: dict[str, tuple[Array, Encoding]] = {}
    for name in dict.fromkeys(site.value for site in placement.weights):
        sites = [site for site in placement.weights if site.value == name]
        array = _array(model, name)
        if sites[0].is_operand:
            encoding = range_encoding(float(array.min()), float(array.max()), sites[0].dtype, False)
            found[name] = (encoding.quantise(array), encoding)
            continue
        smallest = [_smallest_scale(model, site, encodings) for site in sites]
        summed = {site.kernel: site for site in sites if site.kernel is not None}
        if len(summed) > 1:  # no order of pairs suits all: none saturates below half the limit
            smallest.append(_half_range_scale(array, sites[0].axis))
        site = next(iter(summed.values()), sites[0])
        least = reduce(np.maximum, smallest)
        key = (name, site.axis, site.kernel, least.tobytes())
        if key not in known:
            known[key] = encode_weight(array, site, least)
        found[name] = known[key]
    return found


def _half_range_scale(weight: Array, axis: int | None) -> Array:
    """The scales with which weights stay within half of what a pair of them may add up to."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    largest: Array = np.abs(weight).max(axis=others)
    return largest.astype(np.float64) / (PAIR_LIMIT // 2)


def _smallest_scale(model: ir.Model, site: WeightSite, encodings: Mapping[str, Encoding]) -> Array:
    if site.bias is None or site.activation is None:
        return np.zeros(())
    smallest = smallest_weight_scale(_array(model, site.bias), encodings[site.activation])
    return smallest if site.axis is not None else smallest.max()


def _array(model: ir.Model, name: str) -> Array:
    array = constant_array(model.graph.initializers[name])
    if array is None:
        raise ValueError(f"{name} is no constant")
    return array
