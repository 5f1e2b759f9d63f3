"""The settings of casting to half precision."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.precision.formats import FORMATS, HalfFormat

TARGETS = ("cpu", "gpu")


@dataclass(frozen=True)
class CastSettings:
    """What becomes half precision.

    ``to`` is one of FORMATS. ``target`` is one of TARGETS: for "cpu" nodes compute in half where
    ONNX Runtime's CPU provider of this machine has kernels for products in it, for "gpu" where
    ONNX's types allow it. Weights are stored in half in any case. ``keep_io`` keeps float32 inputs
    and outputs. ``exclude`` are patterns (``*``, ``?``) of names of nodes that compute in float32.
    Raises InputError for a value that is not one of these.
    """

    to: str = "float16"
    target: str = "cpu"
    keep_io: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (("to", self.to, FORMATS), ("target", self.target, TARGETS)):
            if value not in known:
                raise InputError(f"{name} {value!r}: is not known; choose {', '.join(known)}.")

    @property
    def form(self) -> HalfFormat:
        """The format to cast to."""
        return FORMATS[self.to]
