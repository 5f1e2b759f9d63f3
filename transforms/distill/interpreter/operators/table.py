"""How operators are listed: by domain and name, each with the builder of its function."""

from __future__ import annotations

from collections.abc import Callable

from trimton.transforms.distill.interpreter.node import Kernel, NodeView

Builder = Callable[[NodeView], Kernel]


def plain(function: Kernel) -> Builder:
    """The builder of a function that needs no attribute of its node."""
    return lambda _: function
