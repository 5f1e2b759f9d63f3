"""Calibration: what the activations of a model are like on samples, in one pass over them."""

from trimton.transforms.quantize.calibration.feeds import feeds
from trimton.transforms.quantize.calibration.histogram import Histogram
from trimton.transforms.quantize.calibration.running import calibrate

__all__ = ["Histogram", "calibrate", "feeds"]
