"""Half precision: float16 and bfloat16."""

from trimton.transforms.precision.casting import cast
from trimton.transforms.precision.settings import CastSettings

__all__ = ["CastSettings", "cast"]
