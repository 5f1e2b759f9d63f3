"""ONNX models in memory: load, save, validate, identify, weigh and run them."""
