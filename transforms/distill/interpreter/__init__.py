"""An ONNX graph as a torch module (needs the extra ``distill``)."""

from trimton.transforms.distill.interpreter.module import OnnxModule

__all__ = ["OnnxModule"]
