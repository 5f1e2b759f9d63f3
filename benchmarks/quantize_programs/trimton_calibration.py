"""Trimton's calibration alone: one pass over the samples, then ranges by every method."""

import itertools

import numpy as np
from measured import measured

from trimton.perf.hardware import describe
from trimton.plugin.steps.targets import resolve_target
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.load import load_model
from trimton.transforms.quantize.calibration import calibrate
from trimton.transforms.quantize.encodings import activation_encodings
from trimton.transforms.quantize.placement import place
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.ranges import RANGE_METHODS, range_method
from trimton.transforms.quantize.targets import target_named


def batches(requests, samples, batch):
    """``samples`` in all, the requests again and again, ``batch`` at once."""
    endless = itertools.cycle(requests)
    for start in range(0, samples, batch):
        chosen = list(itertools.islice(endless, min(batch, samples - start)))
        yield {name: np.concatenate([one[name] for one in chosen]) for name in chosen[0]}


def placed(source):
    """The prepared model, and what becomes integers in it on this machine."""
    fused, _ = fuse(load_model(source))
    model, _ = prepare(fused)
    target = target_named(resolve_target("auto", describe().instruction_sets))
    return model, place(model, target, ())


def calibration(prepared, requests, result, options):
    model, placement = prepared
    feeds = batches(requests, options["samples"], options["batch"])
    histograms = calibrate(model, placement.activations, feeds)
    for name in RANGE_METHODS:
        activation_encodings(placement, histograms, range_method(name))


if __name__ == "__main__":
    measured(calibration, placed)
