"""Quantisation: fewer bits for weights and activations."""

from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.static import quantize

__all__ = ["QuantizeSettings", "quantize"]
