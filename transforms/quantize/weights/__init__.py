"""Weights as integers: scales, kernels that saturate, rounding that makes up for its errors."""

from trimton.transforms.quantize.weights.encode import encode_weight

__all__ = ["encode_weight"]
