"""The exception family. Each class carries the exit code that a command ends with.

Exit codes: 0 pass, 1 fail (a threshold is broken), 2 wrong use or wrong input,
3 inconclusive, 4 infrastructure, 130 interrupted.
"""

from __future__ import annotations

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_INPUT = 2
EXIT_INCONCLUSIVE = 3
EXIT_INFRASTRUCTURE = 4
EXIT_INTERRUPTED = 130


class TrimtonError(Exception):
    """Base of all errors that Trimton raises on purpose.

    The message is one sentence for a person: it names the file, the place in it
    and the mend.
    """

    exit_code = EXIT_INFRASTRUCTURE


class InputError(TrimtonError):
    """What the user gave (a file, a recipe, an option) is wrong."""

    exit_code = EXIT_INPUT


class UnsupportedModelError(InputError):
    """The model is valid, but Trimton cannot do to it what was asked."""


class InfrastructureError(TrimtonError):
    """Something around Trimton failed: a server, the disk, memory, the network."""

    exit_code = EXIT_INFRASTRUCTURE


class TransformError(TrimtonError):
    """A transform produced a model that does not hold what it promises; nothing was written."""

    exit_code = EXIT_FAIL
