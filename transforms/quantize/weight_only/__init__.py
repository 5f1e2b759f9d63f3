"""Weights in blocks of 4 or 8 bits; activations stay in float."""

from trimton.transforms.quantize.weight_only.quantising import quantize_weights
from trimton.transforms.quantize.weight_only.settings import WeightOnlySettings

__all__ = ["WeightOnlySettings", "quantize_weights"]
