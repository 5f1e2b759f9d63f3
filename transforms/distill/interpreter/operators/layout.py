"""Blocks of channels and space, triangles, sampling on a grid; Dropout as inference has it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results, described
from trimton.transforms.distill.interpreter.operators.table import Builder


def depth_to_space(view: NodeView) -> Kernel:
    """[N, C*b*b, H, W] -> [N, C, H*b, W*b]; the block's axes before (DCR) or behind C (CRD)."""
    b = view.integer("blocksize", 1)
    is_block_first = view.text("mode", "DCR") == "DCR"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if is_block_first:
            y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
        return y.reshape(n, c // b**2, h * b, w * b)

    return run


def space_to_depth(view: NodeView) -> Kernel:
    """[N, C, H*b, W*b] -> [N, b*b*C, H, W]; the block's axes before (DCR) or behind C (CRD)."""
    b = view.integer("blocksize", 1)
    order = (0, 3, 5, 1, 2, 4) if view.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // b, b, w // b, b).permute(order)
        return y.reshape(n, c * b**2, h // b, w // b)

    return run


def trilu(view: NodeView) -> Kernel:
    """The upper or lower triangle, from the k-th diagonal on."""
    cut, diagonal_of = (torch.triu if view.flag("upper", True) else torch.tril), view.reader(1)
    return lambda x, k=None: cut(x, (diagonal_of(k) or [0])[0])


_GRID_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(view: NodeView) -> Kernel:
    """X [N, C, H, W] at the places of a grid (Jaderberg et al., 2015)."""
    given = view.text("mode", "linear")
    mode, padding = _GRID_MODES.get(given, given), view.text("padding_mode", "zeros")
    corners = view.flag("align_corners")
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)


def dropout(view: NodeView) -> Kernel:
    """x itself, as in inference; the mask on demand is full (before operator set 12 empty).

    Raises UnsupportedModelError for one that is in its training form.
    """
    if view.known_number(2):
        raise UnsupportedModelError(
            f"{described(view.node)} drops at random in inference, too; export the "
            f"model in inference form."
        )
    wants_mask, is_full = view.wants(1), view.opset >= 12

    def run(x: Tensor, *_: Tensor | None) -> Results:
        if not wants_mask:
            return x
        return x, torch.full(x.shape, is_full, dtype=torch.bool if view.opset >= 10 else x.dtype)

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "DepthToSpace"): depth_to_space,
    ("", "Dropout"): dropout,
    ("", "GridSample"): grid_sample,
    ("", "SpaceToDepth"): space_to_depth,
    ("", "Trilu"): trilu,
}
