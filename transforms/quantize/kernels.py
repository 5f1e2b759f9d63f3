"""Operators that compute on 8-bit values, and on which conditions.

What ONNX Runtime's CPU provider turns from the QDQ form into an 8-bit kernel, or lets pass
8-bit values unchanged. An operator that is missing here stays in float: a QuantizeLinear beside
it would only add work. tests/transforms/quantize/test_targets.py holds this table against the
runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

from trimton.transforms.quantize.refusals import (
    average_pool_refusal,
    conv_refusal,
    division_refusal,
    gather_refusal,
    gemm_refusal,
    matmul_refusal,
    move_refusal,
    pool_refusal,
    resize_refusal,
)
from trimton.transforms.quantize.roles import Kernel, Role

_MOVE = Kernel(Role.MOVE, refusal=move_refusal)
_LINK = Kernel(Role.LINK)

KERNELS: Mapping[str, Kernel] = {
    "Add": Kernel(Role.LINK, (0, 1), broadcasts=True),
    "AveragePool": Kernel(Role.LINK, refusal=average_pool_refusal),
    "Concat": Kernel(Role.LINK, None),
    "Conv": Kernel(Role.LAYER, (0, 1), bias=2, order="conv", refusal=conv_refusal),
    "DepthToSpace": _MOVE,
    "Div": Kernel(Role.SCALE, refusal=division_refusal),
    "Expand": _MOVE,
    "Flatten": _MOVE,
    "Gather": Kernel(Role.MOVE, refusal=gather_refusal),
    "GatherElements": _MOVE,
    "Gemm": Kernel(
        Role.LAYER, (0, 1), bias=2, order="matmul", float_output=True, refusal=gemm_refusal
    ),
    "GlobalAveragePool": _LINK,
    "Identity": _MOVE,
    "LeakyRelu": _LINK,
    "MatMul": Kernel(Role.LAYER, (0, 1), order="matmul", float_output=True, refusal=matmul_refusal),
    "MaxPool": Kernel(Role.MOVE, refusal=pool_refusal),
    "Mul": Kernel(Role.LINK, (0, 1), broadcasts=True),
    "ReduceMax": _MOVE,
    "ReduceMin": _MOVE,
    "Reshape": _MOVE,
    "Resize": Kernel(Role.MOVE, refusal=resize_refusal),
    "Sigmoid": _LINK,
    "Slice": _MOVE,
    "Split": _MOVE,
    "Squeeze": _MOVE,
    "Tile": _MOVE,
    "Transpose": _MOVE,
    "Unsqueeze": _MOVE,
}
