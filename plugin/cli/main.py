"""The ``trimton`` program: collects the commands and renders errors once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import typer

from trimton.core.errors import EXIT_INTERRUPTED, TrimtonError

# Command -> module in this package; its ``app`` (a Typer group) or its ``command`` is used.
COMMANDS = {
    "doctor": "doctor",
    "server": "server",
    "inspect": "inspect",
    "fuse": "fuse",
    "prune": "prune",
    "factorise": "factorise",
    "sparsify": "sparsify",
    "distill": "distill",
    "quantize": "quantize",
    "reconstruct": "reconstruct",
    "quantize-weights": "quantize_weights",
    "quantize-dynamic": "quantize_dynamic",
    "cast": "cast",
    "run": "run",
    "perf": "perf",
    "compare": "compare",
    "gate": "gate",
    "repository": "repository",
    "promote": "promote",
    "rollback": "rollback",
    "agent": "agent",
    "serve-hooks": "serve_hooks",
}


def build_app() -> typer.Typer:
    """The Typer application with every command of COMMANDS."""
    app = typer.Typer(
        name="trimton",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        help="Compress the ONNX models of a Triton repository, prove on a real Triton that they "
        "are as good and cheaper to serve, and let only proven models ship.\n\n"
        "Exit codes: 0 pass, 1 fail, 2 wrong use or input, 3 inconclusive, 4 infrastructure, "
        "130 interrupted.",
    )
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(f"trimton.plugin.cli.{module_name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and leave with the exit code of the design."""
    try:
        build_app()(args=None if arguments is None else list(arguments))
    except TrimtonError as error:
        print(f"trimton: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("trimton: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
