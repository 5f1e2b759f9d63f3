"""How sparse, in which pattern, and what chooses the weights that go."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.sparsify.pattern import Pattern, Unstructured, parse_pattern

METHODS = ("magnitude", "wanda", "compensated")
_NEED_SAMPLES = frozenset({"wanda", "compensated"})


@dataclass(frozen=True)
class SparsifySettings:
    """Settings of ``sparsify``.

    One of two says what goes: ``pattern`` N:M keeps N of every M neighbouring input channels,
    ``ratio`` is the share of each layer's weights that goes, above 0 and below 1. ``method`` is
    one of METHODS: "magnitude" keeps the largest weights, "wanda" those with the largest product
    of weight and norm of what it multiplies, "compensated" those whose loss costs most after the
    others were changed to make up for it. ``exclude`` are patterns (``*``, ``?``) of names of
    nodes that stay dense.
    Raises InputError for a value that is not one of these.
    """

    pattern: str | None = None
    ratio: float | None = None
    method: str = "compensated"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.pattern is None) == (self.ratio is None):
            raise InputError("give one of pattern and ratio, and only one.")
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r}: is not known; choose {', '.join(METHODS)}.")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise InputError(f"ratio {self.ratio:g}: must lie between 0 and 1, such as 0.5.")
        self.chosen()

    @property
    def needs_samples(self) -> bool:
        """Whether the method looks at activations."""
        return self.method in _NEED_SAMPLES

    def chosen(self) -> Pattern:
        """The pattern asked for."""
        return parse_pattern(self.pattern) if self.pattern else Unstructured(self.ratio or 0.0)
