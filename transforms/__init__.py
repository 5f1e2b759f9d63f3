"""ONNX graph in, smaller ONNX graph out. Knows nothing of Triton."""
