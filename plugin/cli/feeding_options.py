"""What the options of inputs and expected outputs mean together, for ``perf`` and ``compare``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimton.core.errors import InputError
from trimton.perf.load.tolerance import Tolerance

if TYPE_CHECKING:
    from trimton.plugin.feeding import Feeding


def feeding_of(
    *,
    data: str | None,
    input_data: str | None,
    shapes: Sequence[str] | None,
    seed: int,
    validate: bool | None,
    rtol: float | None,
    atol: float | None,
) -> Feeding:
    """What requests carry and answers must hold, checked; InputError names what is wrong."""
    from trimton.plugin.feeding import Feeding

    given = {"--validate-rtol": rtol, "--validate-atol": atol}
    for option, value in given.items():
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{option} must be 0 or more, not {value:g}.")
    tolerance = Tolerance(
        Tolerance.rtol if rtol is None else rtol, Tolerance.atol if atol is None else atol
    )
    has_tolerance = (rtol, atol) != (None, None)
    if has_tolerance and validate is False:
        raise InputError("--validate-rtol and --validate-atol are not for --no-validate.")
    # Who gives a tolerance wants validation: a file without any is an error then.
    validates = True if has_tolerance else validate
    return Feeding(data, input_data, shapes_of(shapes), seed, validates, tolerance)


def shapes_of(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The dimensions of every ``--shape``, by the name of the input."""
    return dict(shape_option(text) for text in texts or ())


def shape_option(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and dimensions of ``--shape NAME:DIMS``; InputError for anything else."""
    name, _, dimensions = text.rpartition(":")
    try:
        return _named(name), tuple(int(part) for part in dimensions.split(","))
    except ValueError:
        raise InputError(
            f"--shape {text}: give NAME:DIMS with whole numbers, for example image:3,224,224."
        ) from None


def _named(name: str) -> str:
    if not name:
        raise ValueError("no name")
    return name
