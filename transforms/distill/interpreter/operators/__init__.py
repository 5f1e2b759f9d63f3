"""The table of operators: by domain and name, the builder of the function that computes it."""

from __future__ import annotations

from collections.abc import Mapping

from trimton.transforms.distill.interpreter.operators import (
    convolution,
    elementwise,
    indexing,
    layout,
    movement,
    normalisation,
    pooling,
    product,
    quantisation,
    recurrent,
    reduction,
    resize,
    selection,
    shape,
)
from trimton.transforms.distill.interpreter.operators.table import Builder

OPERATORS: Mapping[tuple[str, str], Builder] = {
    **convolution.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **layout.OPERATORS,
    **movement.OPERATORS,
    **normalisation.OPERATORS,
    **pooling.OPERATORS,
    **product.OPERATORS,
    **quantisation.OPERATORS,
    **recurrent.OPERATORS,
    **reduction.OPERATORS,
    **resize.OPERATORS,
    **selection.OPERATORS,
    **shape.OPERATORS,
}
