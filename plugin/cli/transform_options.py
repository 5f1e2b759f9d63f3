"""Arguments and options that the commands share which make one model from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceArgument = Annotated[Path, typer.Argument(metavar="IN", help="The float model (.onnx).")]
ResultArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Where to write the result; may be IN.")
]

_DATA = typer.Option(
    "--data",
    "-d",
    metavar="D",
    help="Calibration samples: an .npz with one array for each input, or PACKAGE.MODULE:FUNCTION, "
    "or FILE.py:FUNCTION.",
)
DataOption = Annotated[str | None, _DATA]
RequiredDataOption = Annotated[str, _DATA]

ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NODE", help="Leave this node as it is (repeatable; * and ? match)."),
]
