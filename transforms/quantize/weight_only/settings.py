"""The settings of weight-only quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.quantize.weight_only.blocks import BlockFormat

BITS = (4, 8)
BLOCKS = (16, 32, 64, 128, 256)
COMPUTE_TYPES = ("int8", "float32")


@dataclass(frozen=True)
class WeightOnlySettings:
    """How weights are stored.

    ``bits`` (one of BITS) of each weight, ``block`` (one of BLOCKS) neighbours with one scale.
    ``symmetric`` stores no zero points. ``compute`` (one of COMPUTE_TYPES) is what the kernels
    multiply in: "int8" lets them round each block of what they read to 8 bits, "float32" does
    not. ``tables`` stores the tables of embeddings in the same way. ``restore`` stores the weights
    of convolutions and recurrent layers in 8 bits, too, which are float32 again once the model is
    loaded. ``exclude`` are patterns (``*``, ``?``) of names of nodes that stay in float.
    Raises InputError for a value that is not one of these.
    """

    bits: int = 4
    block: int = 32
    symmetric: bool = True
    compute: str = "int8"
    tables: bool = True
    restore: bool = False
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("bits", self.bits, BITS),
            ("block", self.block, BLOCKS),
            ("compute", self.compute, COMPUTE_TYPES),
        ):
            if value not in known:
                choices = ", ".join(map(str, known))
                raise InputError(f"{name} {value!r}: is not known; choose {choices}.")

    @property
    def form(self) -> BlockFormat:
        """How one row of weights is stored."""
        return BlockFormat(self.bits, self.block, self.symmetric)
