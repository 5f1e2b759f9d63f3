"""Shapes, and tensors made from shapes and numbers."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.dtypes import to_tensor, torch_type
from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.table import Builder, plain


def shape(view: NodeView) -> Kernel:
    """The dimensions from ``start`` to ``end``."""
    start, end = view.integer("start", 0), view.node.attributes.get_int("end", None)
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    """The number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64)


def constant(view: NodeView) -> Kernel:
    """A Constant node that is no initializer: a dense tensor."""
    value = to_tensor(view.node.attributes["value"].as_tensor().numpy())
    return lambda: value


def constant_of_shape(view: NodeView) -> Kernel:
    """One number everywhere."""
    attribute = view.node.attributes.get("value")
    number = torch.zeros(1) if attribute is None else to_tensor(attribute.as_tensor().numpy())
    shape_of = view.reader(0)
    return lambda wanted: number.reshape(()).expand(shape_of(wanted) or []).clone()


def range_(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """start, start + step, ... below limit."""
    bounds = (start.item(), limit.item(), step.item())
    is_empty = (bounds[1] - bounds[0]) * bounds[2] <= 0
    return start.new_empty(0) if is_empty else torch.arange(*bounds, dtype=start.dtype)


def eye_like(view: NodeView) -> Kernel:
    """Ones on the k-th diagonal."""
    diagonal, code = view.integer("k", 0), view.integer("dtype", 0)
    dtype = torch_type(ir.DataType(code), f"the result of {view.node.name}") if code else None

    def run(x: Tensor) -> Tensor:
        made = torch.zeros(x.shape, dtype=dtype or x.dtype)
        made.diagonal(diagonal).fill_(1)
        return made

    return run


def one_hot(view: NodeView) -> Kernel:
    """values[1] where an index stands, values[0] elsewhere; indices count from behind below 0."""
    axis, depth_of = view.integer("axis", -1), view.reader(1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = (depth_of(depth) or [0])[0]
        places = indices.to(torch.int64)
        places = torch.where(places < 0, places + count, places).unsqueeze(axis)
        numbers = torch.arange(count).reshape(
            [count if i == axis % places.ndim else 1 for i in range(places.ndim)]
        )
        return torch.where(places == numbers, values[1], values[0])

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Constant"): constant,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "EyeLike"): eye_like,
    ("", "OneHot"): one_hot,
    ("", "Range"): plain(range_),
    ("", "Shape"): shape,
    ("", "Size"): plain(size),
}
