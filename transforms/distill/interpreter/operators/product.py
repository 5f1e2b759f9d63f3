"""Products of matrices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.table import Builder, plain


def gemm(view: NodeView) -> Kernel:
    """alpha A' B' + beta C, where A' and B' are transposed on demand."""
    alpha, beta = view.number("alpha", 1.0), view.number("beta", 1.0)
    flips_a, flips_b = view.flag("transA"), view.flag("transB")
    is_linear = alpha == beta == 1.0

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if flips_a else a
        if is_linear and (c is None or c.ndim == 1):
            return F.linear(a, b if flips_b else b.t(), c)
        y = a @ (b.t() if flips_b else b)
        y = y if alpha == 1.0 else y * alpha
        if c is None:
            return y
        return y + (c if beta == 1.0 else c * beta)

    return run


def einsum(view: NodeView) -> Kernel:
    """The sum over the indices that the equation drops."""
    equation = view.text("equation", "").replace(" ", "")
    return lambda *operands: torch.einsum(equation, *operands)


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Einsum"): einsum,
    ("", "Gemm"): gemm,
    ("", "MatMul"): plain(torch.matmul),
}
