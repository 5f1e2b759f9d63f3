"""Options of how a measurement runs, shared by ``perf`` and ``compare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class RunningOptions:
    """What computes in this process, and what chance decides."""

    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads inside one inference of an .onnx file in this process."),
    ] = 1
    seed: Annotated[int, typer.Option(help="Seed of random inputs, orders and intervals.")] = 0
