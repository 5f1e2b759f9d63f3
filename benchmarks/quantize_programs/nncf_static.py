"""NNCF's post-training quantisation of an ONNX model, as its guide shows it."""

import nncf
import onnx
from measured import measured


def compress(source, requests, result, options):
    model = onnx.load(source)
    # Its guide asks for this type where a model is a transformer.
    is_transformer = any(node.op_type == "LayerNormalization" for node in model.graph.node)
    quantised = nncf.quantize(
        model,
        nncf.Dataset(requests),
        subset_size=len(requests),
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
    )
    onnx.save(quantised, result)


if __name__ == "__main__":
    measured(compress)
