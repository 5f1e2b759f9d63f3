"""The settings of static quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CalibrationMethod = Literal["minmax", "percentile", "entropy"]


@dataclass(frozen=True)
class QuantizeSettings:
    """How to quantise.

    ``calibration_method`` chooses activation ranges from the samples: their extremes, the range
    that holds ``percentile`` percent of the values, or the one of least Kullback-Leibler
    divergence. ``per_channel`` gives each output channel of a weight its own scale. ``target``
    names the kernels (see targets). ``exclude`` are node names (``*`` matches
    any text) that stay in float. ``batch`` samples run at once during calibration.
    """

    calibration_method: CalibrationMethod = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    target: str = "avx2"
    exclude: tuple[str, ...] = ()
    batch: int = 16
