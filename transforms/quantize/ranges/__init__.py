"""Ranges: how much of what a tensor holds its integers shall cover."""

from trimton.transforms.quantize.ranges.choice import (
    RANGE_METHODS,
    RangeMethod,
    activation_encoding,
    range_method,
)

__all__ = ["RANGE_METHODS", "RangeMethod", "activation_encoding", "range_method"]
