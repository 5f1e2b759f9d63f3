"""Dynamic quantisation: integer weights, activations rounded to 8 bits at each run."""

from trimton.transforms.quantize.dynamic.quantising import quantize_dynamic
from trimton.transforms.quantize.dynamic.settings import DynamicSettings

__all__ = ["DynamicSettings", "quantize_dynamic"]
