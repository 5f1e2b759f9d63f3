"""The settings of static quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.quantize.calibration.counter import STRIDE

# The calibration method that stands for whichever leaves the outputs closest: see range_choice.
AUTO = "auto"


@dataclass(frozen=True)
class QuantizeSettings:
    """How to quantise.

    ``calibration_method`` names what chooses activation ranges from the samples (see ranges), or
    is "auto": the method that leaves the outputs closest (see range_choice);
    ``percentile`` is for the method of that name. Of large tensors every ``stride``-th value is
    counted (1: all), the extremes are those of all. ``per_channel`` gives each output channel of a
    weight its own scale. ``target`` names the kernels (see targets). ``exclude`` are node names
    (``*`` matches any text) that stay in float. ``equalise`` and ``smooth`` first move scales of
    channels between layers and out of what matrix products read, where that promises less error;
    the float outputs stay the same. ``compensate`` rounds weights of
    matrix products so that they make up for each other's errors on the samples (see
    product_rounding). ``correct_bias`` takes the mean error that rounded weights
    make on the samples out of the biases. ``refine`` does both for all layers, one
    after the other, on what they read in the quantised network.

    With ``min_agreement`` (share of samples with the same largest output) or ``min_sqnr_db`` the
    layers that do most harm stay in float, as few as the outputs need for it, and no more than
    the share ``max_float_macs`` of the multiply-accumulates. Raises InputError for a share that
    is none, and for a stride below 1.
    """

    calibration_method: str = AUTO
    percentile: float = 99.99
    stride: int = STRIDE
    per_channel: bool = True
    target: str = "avx2"
    exclude: tuple[str, ...] = ()
    equalise: bool = False
    smooth: bool = True
    compensate: bool = True
    correct_bias: bool = True
    refine: bool = False
    min_agreement: float | None = None
    min_sqnr_db: float | None = None
    max_float_macs: float = 1.0

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise InputError(f"stride is {self.stride}; give 1 to count all values, or more.")
        for name in ("min_agreement", "max_float_macs"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"{name} is {share:g}; give a share between 0 and 1.")
