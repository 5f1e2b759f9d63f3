"""Gradients from an ONNX file alone: training a smaller model on what a larger one answers."""
