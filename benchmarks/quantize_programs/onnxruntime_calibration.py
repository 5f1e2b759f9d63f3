"""ONNX Runtime's calibration alone, by one method."""

from measured import measured
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime_static import Requests


def calibration(source, requests, result, options):
    method = CalibrationMethod[options["method"]]
    augmented = result.with_name("augmented.onnx")
    calibrator = create_calibrator(
        source, None, augmented_model_path=str(augmented), calibrate_method=method
    )
    calibrator.collect_data(Requests(requests))
    calibrator.compute_data()


if __name__ == "__main__":
    measured(calibration)
