"""onnxsim's static recipe: simplify, then quantise with ranges from the data."""

import onnx
import onnxsim
from measured import measured


def compress(source, requests, result, options):
    simplified, is_right = onnxsim.simplify(onnx.load(source))
    if not is_right:
        raise RuntimeError("onnxsim's own check of the simplified model fails")
    onnx.save(onnxsim.quantize_static(simplified, requests), result)


if __name__ == "__main__":
    measured(compress)
