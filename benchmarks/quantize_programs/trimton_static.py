"""Trimton: fuse, then quantise for the kernels of this machine."""

import numpy as np
import onnx_ir as ir
from measured import measured

from trimton.core.errors import TrimtonError
from trimton.perf.hardware import describe
from trimton.plugin.steps.targets import resolve_target
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.load import load_model
from trimton.transforms.quantize import QuantizeSettings, quantize


def merged(requests):
    """One array for each input, where each has an axis for samples at its front."""
    if any(array.ndim == 0 or len(array) != 1 for array in requests[0].values()):
        return requests
    return {name: np.concatenate([one[name] for one in requests]) for name in requests[0]}


def compress(source, requests, result, options):
    try:
        fused, _ = fuse(load_model(source))
        target = resolve_target("auto", describe().instruction_sets)
        settings = QuantizeSettings(**{"target": target, **options})
        quantised, _ = quantize(fused, merged(requests), settings)
    except TrimtonError as error:
        raise SystemExit(f"{error}") from error
    ir.save(quantised, result)


if __name__ == "__main__":
    measured(compress)
