"""The measured windows of a run on disk, one JSON line each, appended as they come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trimton.core.files import append_line, write_text
from trimton.perf.results import LoadWindow


@dataclass(frozen=True)
class WindowsFile:
    """The file ``path``; it need not exist yet."""

    path: Path

    def append(self, window: LoadWindow) -> None:
        """Add one window."""
        append_line(self.path, window.model_dump_json())

    def read(self) -> tuple[LoadWindow, ...]:
        """All windows; a last line that a kill cut short is left out."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return tuple(LoadWindow.model_validate_json(line) for line in lines)

    def keep_complete_rounds(self, windows_per_round: int) -> tuple[LoadWindow, ...]:
        """Take away the windows of a round that was interrupted, and return the others.

        Ratios are taken within a round, so half of one measured earlier has no worth.
        """
        windows = self.read()
        counts = Counter(window.round for window in windows)
        kept = tuple(w for w in windows if counts[w.round] == windows_per_round)
        write_text(self.path, "".join(window.model_dump_json() + "\n" for window in kept))
        return kept
