"""What a relation is: it says how the axes around one node belong together."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from trimton.transforms.prune.ties import Ties

Relation = Callable[[ir.Node, Ties], None]
