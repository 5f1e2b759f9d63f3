"""Trimton: fuse, then quantise for the kernels of this machine."""

import numpy as np
import onnx_ir as ir
from measured import measured

from trimton.core.errors import TrimtonError
from trimton.perf.hardware import describe
from trimton.plugin.variants import resolve_target
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.load import load_model
from trimton.transforms.quantize import QuantizeSettings, quantize


def compress(source, requests, result, options):
    for name, array in requests[0].items():
        if array.ndim == 0 or len(array) != 1:
            raise SystemExit(
                f"the first axis of input {name!r} is no batch: samples cannot be given"
            )
    names = requests[0]
    samples = {name: np.concatenate([request[name] for request in requests]) for name in names}
    try:
        fused, _ = fuse(load_model(source))
        target = resolve_target("auto", describe().instruction_sets)
        settings = QuantizeSettings(**{"target": target, **options})
        quantised, _ = quantize(fused, samples, settings)
    except TrimtonError as error:
        raise SystemExit(f"{error}") from error
    ir.save(quantised, result)


if __name__ == "__main__":
    measured(compress)
