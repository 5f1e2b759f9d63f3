"""The settings of static quantisation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizeSettings:
    """How to quantise.

    ``calibration_method`` names what chooses activation ranges from the samples (see ranges);
    ``percentile`` is for the method of that name. ``per_channel`` gives each output channel of a
    weight its own scale. ``target`` names the kernels (see targets). ``exclude`` are node names
    (``*`` matches any text) that stay in float. ``equalise`` and ``smooth`` first move scales of
    channels between layers and out of what matrix products read, where that promises less error;
    the float outputs stay the same. ``refine`` rounds weights so that they make up
    for each other's errors, and corrects biases, layer by layer on the samples.
    """

    calibration_method: str = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    target: str = "avx2"
    exclude: tuple[str, ...] = ()
    equalise: bool = True
    smooth: bool = True
    refine: bool = True
