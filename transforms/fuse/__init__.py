"""Lossless fusions: fewer nodes, the same outputs, proven. One file per family of patterns."""

from trimton.transforms.fuse.fusion import DEFAULT_TOLERANCE, FAMILIES, fuse

__all__ = ["DEFAULT_TOLERANCE", "FAMILIES", "fuse"]
