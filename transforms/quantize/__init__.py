"""Quantisation: fewer bits for weights and activations."""

from trimton.transforms.quantize.quantising import quantize
from trimton.transforms.quantize.settings import QuantizeSettings

__all__ = ["QuantizeSettings", "quantize"]
