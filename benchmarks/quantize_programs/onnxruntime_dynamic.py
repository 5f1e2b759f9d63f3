"""ONNX Runtime's quantize_dynamic: no calibration, activations are measured at each run."""

import tempfile
from pathlib import Path

from measured import measured
from onnxruntime import quantization
from onnxruntime.quantization.preprocess import quant_pre_process


def compress(source, requests, result, options):
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_dynamic(prepared, result, per_channel=True)


if __name__ == "__main__":
    measured(compress)
