"""After the commit: every server serves it and answers as recorded, or what served comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trimton.core.errors import EXIT_INCONCLUSIVE, InfrastructureError, TrimtonError
from trimton.plugin.promotion.journal import Change, Journal
from trimton.plugin.promotion.servers import DEFAULT_TOLERANCE, RunningServer
from trimton.plugin.promotion.versions import reread, set_served_versions
from trimton.plugin.recorded import Recorded
from trimton.plugin.repository import RepositoryModel

# told: control mode explicit. looked: mode poll. at_next_start: mode none, or a poll that is later.
How = Literal["told", "looked", "at_next_start"]


class RolledBackError(TrimtonError):
    """A server objected to a change, and what served before serves again."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class ServerAnswer:
    """How one server came to serve a version; ``difference`` from recorded answers, if asked."""

    address: str
    how: How
    difference: float | None


@dataclass(frozen=True)
class ServerCheck:
    """The servers to ask, what to ask them (None: only whether they are ready), how close."""

    servers: Sequence[RunningServer]
    recorded: Recorded | None = None
    tolerance: float = DEFAULT_TOLERANCE

    def require_live(self) -> None:
        """InfrastructureError unless all servers answer."""
        for server in self.servers:
            server.require_live()


def confirm(
    check: ServerCheck, model: str, served: Sequence[int], version: int
) -> tuple[ServerAnswer, ...]:
    """Let every server serve ``served`` of ``model``, and ask for ``version`` what was recorded.

    Raises what a server objects with: InputError where it does not load, InfrastructureError where
    it does not answer, WrongAnswerError where it answers differently.
    """
    return tuple(_confirm(check, server, model, served, version) for server in check.servers)


@contextlib.contextmanager
def undoing(
    journal: Journal, model: RepositoryModel, change: Change, check: ServerCheck
) -> Iterator[None]:
    """Undo ``change`` of ``model``, on the disk and on the servers, if the block fails.

    Raises RolledBackError with the block's reason and exit code.
    """
    try:
        yield
    except (TrimtonError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        may_be_repeated = (
            isinstance(error, (InfrastructureError, KeyboardInterrupt))
            or error.exit_code == EXIT_INCONCLUSIVE
        )
        back = journal.begin(
            change.model,
            "undo",
            change.after,
            change.before,
            undoes=change.id,
            reason=reason,
            may_be_repeated=may_be_repeated,
        )
        set_served_versions(reread(model), change.before)
        journal.note(back, "committed")
        left = [text for server in check.servers if (text := _restored(server, change))]
        if isinstance(error, KeyboardInterrupt):
            raise
        versions = ", ".join(map(str, change.before))
        raise RolledBackError(
            " ".join([f"{reason} Version {versions} was put back into service.", *left]),
            error.exit_code,
        ) from error


def _confirm(
    check: ServerCheck, server: RunningServer, model: str, served: Sequence[int], version: int
) -> ServerAnswer:
    is_told = server.load(model)
    if not server.wait_until_served(model, served):
        if not is_told:
            return ServerAnswer(server.address, "at_next_start", None)
        raise InfrastructureError(
            f"the server at {server.address} has loaded {model!r}, but version {version} is not "
            f"ready after {server.timeout_s:g} s."
        )
    gap = None
    if check.recorded is not None:
        gap = server.check_answers(model, version, check.recorded, tolerance=check.tolerance)
    return ServerAnswer(server.address, "told" if is_told else "looked", gap)


def _restored(server: RunningServer, change: Change) -> str:
    """Let a server serve what served before; says what is wrong if it does not."""
    try:
        server.load(change.model)
        if server.wait_until_served(change.model, change.before):
            return ""
    except TrimtonError as error:
        return f"But {str(error)[0].lower()}{str(error)[1:]}"
    return f"But the server at {server.address} does not serve it yet."
