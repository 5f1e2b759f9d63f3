"""Linear layers: what convolutions and matrix products share, and what they read on samples."""

from trimton.transforms.linear.layers import LinearLayer, LinearLayers, find_linear_layers

__all__ = ["LinearLayer", "LinearLayers", "find_linear_layers"]
