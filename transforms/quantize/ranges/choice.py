"""The methods that choose a range from a histogram, by name, and the encoding that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from trimton.core.errors import InputError
from trimton.transforms.quantize.calibration.histogram import Histogram
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.ranges.entropy import entropy
from trimton.transforms.quantize.ranges.extremes import minmax, moving_average
from trimton.transforms.quantize.ranges.grid import range_encoding
from trimton.transforms.quantize.ranges.mse import mse
from trimton.transforms.quantize.ranges.percentile import DEFAULT_PERCENT, percentile
from trimton.transforms.quantize.sites import ActivationSite

# The values of a tensor, and what it becomes -> the least and the greatest value to be covered.
RangeMethod = Callable[[Histogram, ActivationSite], tuple[float, float]]

RANGE_METHODS: Mapping[str, RangeMethod] = {
    "minmax": minmax,
    "moving_average": moving_average,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def range_method(name: str, percent: float = DEFAULT_PERCENT) -> RangeMethod:
    """The method of that name; ``percent`` is for "percentile". InputError where there is none."""
    if name not in RANGE_METHODS:
        methods = ", ".join(RANGE_METHODS)
        raise InputError(f"unknown calibration method {name!r}; take one of {methods}.")
    return partial(percentile, percent=percent) if name == "percentile" else RANGE_METHODS[name]


def activation_encoding(
    histogram: Histogram, site: ActivationSite, method: RangeMethod
) -> Encoding:
    """The encoding of ``site``, whose values are in ``histogram``, inside the site's bounds."""
    low, high = method(histogram, site)
    return range_encoding(
        max(low, site.bounds[0]), min(high, site.bounds[1]), site.dtype, site.symmetric
    )
