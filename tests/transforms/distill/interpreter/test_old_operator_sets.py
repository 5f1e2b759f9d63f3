"""Operators whose form changed since operator set 7 compute what ONNX Runtime does in each form."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.transforms.distill.interpreter import OnnxModule

# Operator set, what is given beside x [2, 3, 4, 4], and the nodes.
FORMS = (
    (7, "", "y = Clip<min = -0.5, max = 0.5>(x)"),
    (10, "", "y = Clip<max = 0.5>(x)"),
    (11, "float low", "y = Clip(x, low)"),
    (7, "", "y = Softmax(x)"),
    (12, "", "y = LogSoftmax<axis = 2>(x)"),
    (12, "", "y = Hardmax<axis = -2>(x)"),
    (13, "", "y = Softmax(x)"),
    (7, "", "y = Slice<axes = [2], starts = [-3], ends = [9]>(x)"),
    (9, "", "y = Slice<starts = [0, 1], ends = [2, -1]>(x)"),
    (7, "", "y = Pad<pads = [0, 0, 1, 2, 0, 0, 0, 1], value = 1.5>(x)"),
    (10, "", 'y = Pad<mode = "reflect", pads = [0, 0, 1, 2, 0, 0, 0, 1]>(x)'),
    (7, "", "a, b = Split<axis = 1, split = [1, 2]>(x) y = Neg(b)"),
    (11, "", "a, b = Split<axis = 2>(x) y = Neg(b)"),
    (18, "", "a, b = Split<axis = 1, num_outputs = 2>(x) y = Neg(b)"),
    (7, "", "y = Unsqueeze<axes = [4]>(x)"),
    (11, "", "u = Unsqueeze<axes = [0, -1]>(x) y = Squeeze<axes = [0, -1]>(u)"),
    (7, "", "y = ReduceSum<axes = [1, 3]>(x)"),
    (12, "", "y = ReduceSumSquare<keepdims = 0>(x)"),
    (7, "", 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]>(x)'),
    (7, "", 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    (9, "float[4] scales", "y = Upsample(x, scales)"),
    (10, "float[4] scales", 'y = Resize<mode = "linear">(x, scales)'),
    (11, "float[8] roi, float[4] scales", 'y = Resize<mode = "cubic">(x, roi, scales)'),
    (7, "", "y = Dropout<ratio = 0.5>(x)"),
    (10, "", "y, m = Dropout(x)"),
    (13, "", "y, m = Dropout(x)"),
    (9, "", "y, places = TopK<axis = 3, k = 2>(x)"),
    (10, "int64[1] k", "y, places = TopK<axis = 1>(x, k)"),
    (7, "float[3] c", "y = BatchNormalization(x, c, c, c, c)"),
    (15, "float[3] c", "y = BatchNormalization(x, c, c, c, c)"),
    (18, "float[1] c", "y = GroupNormalization<num_groups = 1>(x, c, c)"),
    (21, "float[3] c", "y = GroupNormalization<num_groups = 1>(x, c, c)"),
    (9, "int64[2,3,4,1] i, float[2,3,4,1] u", "y = Scatter<axis = 3>(x, i, u)"),
    (7, "", 'y = MaxPool<kernel_shape = [2, 2], auto_pad = "SAME_LOWER">(x)'),
    (7, "float[5,3,3,3] w", 'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)'),
    (7, "float[3,2,3,3] w", "y = ConvTranspose<output_shape = [8, 9], strides = [2, 2]>(x, w)"),
)
SETTINGS = {
    "i": np.zeros((2, 3, 4, 1), np.int64),
    "k": np.array([2], np.int64),
    "low": np.array(-0.5, np.float32),
    "roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
    "scales": np.array([1, 1, 2, 1.5], np.float32),
}


@pytest.mark.parametrize(("opset", "given", "nodes"), FORMS)
def test_each_form_agrees(parse, opset: int, given: str, nodes: str) -> None:
    inputs = ", ".join(filter(None, ("float[2,3,4,4] x", given)))
    model = parse(f"g ({inputs}) => (float[N] y) {{ {nodes} }}", opset=opset)
    model.graph.outputs[0].shape = None
    rng = np.random.default_rng(0)
    sample = {
        value.name: SETTINGS.get(
            value.name, rng.uniform(0.5, 2, tuple(value.shape)).astype(np.float32)
        )
        for value in model.graph.inputs
    }
    found = OnnxModule(model, check=sample).eval().largest_difference
    assert found is not None
    assert found < 1e-5
