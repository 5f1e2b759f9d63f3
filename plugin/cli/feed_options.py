"""Inputs and expected outputs: options of ``perf`` and ``compare``, and what they mean together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import InputError
from trimton.perf.load.tolerance import Tolerance

if TYPE_CHECKING:
    from trimton.plugin.feeding import Feeding


@dataclass(frozen=True)
class FeedOptions:
    """What requests carry, and what answers must hold."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="D",
            help="Samples to send: an .npz with one array for each input, or "
            "PACKAGE.MODULE:FUNCTION. Without it random values are sent.",
        ),
    ] = None
    input_data: Annotated[
        str | None,
        typer.Option(
            metavar="random|zero|PATH",
            help="What is sent: random values (the default), zeros, or perf_analyzer's input data "
            "(a JSON file, or a folder with one raw file for each input).",
        ),
    ] = None
    validate: Annotated[
        bool | None,
        typer.Option(
            "--validate/--no-validate",
            help="Compare every answer with the validation_data of the JSON file; a wrong output "
            "counts as an error. By default where the file has any.",
        ),
    ] = None
    validate_rtol: Annotated[
        float | None,
        typer.Option(
            help=f"Tolerance for floating-point outputs, relative (default {Tolerance.rtol:g})."
        ),
    ] = None
    validate_atol: Annotated[
        float | None, typer.Option(help=f"The same, absolute (default {Tolerance.atol:g}).")
    ] = None
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:DIMS",
            help="Dimensions after the first of an input with free ones, e.g. tokens:128 or "
            "image:3,224,224 (repeatable).",
        ),
    ] = None
    batch: Annotated[
        int | None, typer.Option("--batch", "-b", help="Samples in each request (default 1).")
    ] = None

    def feeding(self, seed: int) -> Feeding:
        """What all this says, checked; InputError names what is wrong."""
        from trimton.plugin.feeding import Feeding

        tolerances = {"--validate-rtol": self.validate_rtol, "--validate-atol": self.validate_atol}
        for option, value in tolerances.items():
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{option} must be 0 or more, not {value:g}.")
        rtol, atol = tolerances.values()
        tolerance = Tolerance(
            Tolerance.rtol if rtol is None else rtol, Tolerance.atol if atol is None else atol
        )
        has_tolerance = (rtol, atol) != (None, None)
        if has_tolerance and self.validate is False:
            raise InputError("--validate-rtol and --validate-atol are not for --no-validate.")
        # Who gives a tolerance wants validation: a file without any is an error then.
        validates = True if has_tolerance else self.validate
        shapes = shapes_of(self.shape or ())
        return Feeding(self.data, self.input_data, shapes, seed, validates, tolerance)


def shapes_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The dimensions of every ``--shape``, by the name of the input; InputError for a wrong one."""
    return dict(_shape(text) for text in texts)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dimensions = text.rpartition(":")
    try:
        sizes = tuple(int(part) for part in dimensions.split(","))
    except ValueError:
        sizes = ()
    if not (name and sizes):
        raise InputError(
            f"--shape {text}: give NAME:DIMS with whole numbers, for example image:3,224,224."
        )
    return name, sizes
