"""Who served when, and on which verdict: one JSON object a line, only ever appended.

A change begins before anything is moved and is committed after; what a kill left open is
decided by the state that is found (``settle``). The file lies at the top of the repository, where
servers look for folders only.
"""

from __future__ import annotations

import datetime
import errno
import getpass
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trimton.core.files import write_error
from trimton.plugin.promotion.versions import flush_folder

JOURNAL_NAME = ".trimton-journal.jsonl"

Action = Literal["pin", "promote", "canary", "rollback", "undo"]
# begun -> committed -> confirmed by servers | begun -> abandoned
Phase = Literal["begun", "committed", "confirmed", "abandoned"]


class Change(BaseModel):
    """One move of a model from the versions ``before`` to the versions ``after``.

    ``details``: ``digest`` of the version, ``run``, ``verdict`` (sha256 of its file), ``policy``,
    ``reason`` — whatever the action knows.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    time: str
    by: str
    model: str
    action: Action
    before: tuple[int, ...]
    after: tuple[int, ...]
    details: dict[str, Any] = {}
    phase: Phase = "begun"

    @property
    def is_done(self) -> bool:
        """Whether it came into force."""
        return self.phase in ("committed", "confirmed")


class Journal:
    """The journal of the repository in the folder ``repository``."""

    def __init__(self, repository: Path) -> None:
        self.path = repository / JOURNAL_NAME

    def begin(
        self,
        model: str,
        action: Action,
        before: Sequence[int],
        after: Sequence[int],
        **details: Any,
    ) -> Change:
        """Write down what is about to be done."""
        change = Change(
            id=uuid.uuid4().hex,
            time=_now(),
            by=f"{_user()}@{socket.gethostname()}",
            model=model,
            action=action,
            before=tuple(before),
            after=tuple(after),
            details=details,
        )
        self._append(change.model_dump(mode="json"))
        return change

    def note(self, change: Change, phase: Phase, **details: Any) -> None:
        """Write down how far ``change`` has come."""
        entry = {"id": change.id, "time": _now(), "model": change.model, "phase": phase}
        self._append(entry | ({"details": details} if details else {}))

    def changes(self, model: str) -> list[Change]:
        """All changes of ``model`` in order, each in its last phase."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self._entries(model):
            known = found.setdefault(str(entry.get("id")), {})
            details = {**known.get("details", {}), **entry.get("details", {})}
            known |= {**entry, "time": known.get("time", entry.get("time")), "details": details}
        return [change for entry in found.values() if (change := _change(entry)) is not None]

    def settle(self, model: str, served: Sequence[int]) -> None:
        """Decide the changes that a kill left open, by what is ``served`` now."""
        for change in self.changes(model):
            if change.phase == "begun":
                is_done = tuple(served) == change.after
                self.note(change, "committed" if is_done else "abandoned", settled=True)

    def history(self, model: str) -> History:
        """What of ``model`` stands and what was taken out of service again."""
        return History.of(self.changes(model))

    def _entries(self, model: str) -> Iterator[dict[str, Any]]:
        """Whole lines; one that a kill or a full disk cut is passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("model") == model:
                yield entry

    def _append(self, entry: Mapping[str, Any]) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                line = ("\n" if is_cut else "") + json.dumps(entry) + "\n"
                data = line.encode()
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if size == 0:
                flush_folder(self.path.parent)
        except OSError as error:
            raise write_error(self.path, error) from error


@dataclass(frozen=True)
class History:
    """``standing``: changes that a rollback would go back over, oldest first.

    ``withdrawn``: changes that a rollback or an undo took back, each with what took it back.
    """

    standing: tuple[Change, ...]
    withdrawn: tuple[tuple[Change, Change], ...]

    @property
    def served_before(self) -> tuple[int, ...] | None:
        """What served before the present state; None where nothing is known.

        After 1 -> 2 -> 3 and a rollback, it is what served before 2. What ends a canary goes back
        to what served before it began.
        """
        before: tuple[int, ...] | None = None
        for change in reversed(self.standing):
            if before is not None and change.action != "canary":
                break
            before = change.before
        return before

    @classmethod
    def of(cls, changes: Sequence[Change]) -> History:
        """Replay ``changes``, in their order."""
        standing: list[Change] = []
        withdrawn: list[tuple[Change, Change]] = []
        done = [c for c in changes if c.is_done]
        undone = {c.details.get("undoes"): c for c in done if c.action == "undo"}
        for change in done:
            if change.id in undone:
                withdrawn.append((change, undone[change.id]))
            elif change.action == "rollback" and change.after in [c.before for c in standing]:
                while standing:
                    last = standing.pop()
                    withdrawn.append((last, change))
                    if last.before == change.after:
                        break
            elif change.action != "undo" and change.before != change.after:
                standing.append(change)
        return cls(tuple(standing), tuple(withdrawn))


def _change(entry: Mapping[str, Any]) -> Change | None:
    """What ``entry`` says; None where its first line is lost or is not ours."""
    try:
        return Change.model_validate(entry)
    except ValidationError:
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        return str(os.getuid())
