"""ONNX Runtime's quantize_static in the QDQ form, behind the preparation that it recommends."""

import tempfile
from pathlib import Path

from measured import measured
from onnxruntime import quantization
from onnxruntime.quantization.preprocess import quant_pre_process


class Requests(quantization.CalibrationDataReader):
    """One request after the other."""

    def __init__(self, requests):
        self._rest = iter(requests)

    def get_next(self):
        return next(self._rest, None)


def compress(source, requests, result, options):
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            result,
            Requests(requests),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=options["reduce_range"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[options["method"]],
        )


if __name__ == "__main__":
    measured(compress)
