"""The settings of dynamic quantisation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DynamicSettings:
    """How to quantise without calibration samples.

    ``target`` names the kernels (see quantize.targets): where their sums saturate, weights are
    bounded in pairs. ``per_channel`` gives each output its own scale. ``tables`` stores the tables
    of embeddings in 8 bits, too. ``exclude`` are patterns (``*``, ``?``) of names of nodes that
    stay in float.
    """

    target: str = "avx2"
    per_channel: bool = True
    tables: bool = True
    exclude: tuple[str, ...] = ()
