"""NNCF's post-training quantisation of an ONNX model, as its guide shows it."""

import nncf
import onnx
from measured import measured


def compress(source, requests, result, options):
    is_transformer = options.get("is_transformer", False)
    quantised = nncf.quantize(
        onnx.load(source),
        nncf.Dataset(requests),
        subset_size=len(requests),
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
    )
    onnx.save(quantised, result)


if __name__ == "__main__":
    measured(compress)
