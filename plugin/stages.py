"""Stages that a killed run does not repeat.

Each stage has a name and a key: the digest of its inputs. Its result is one JSON document,
written when the stage is finished. A run that comes back with the same key takes the result;
with another key it does the stage again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trimton.core.files import append_line, write_text

Json = dict[str, Any]


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class StageStore:
    """Finished stages of one run directory, and the journal of what happened when."""

    def __init__(self, run_directory: Path) -> None:
        self._folder = run_directory / "stages"
        self._journal = run_directory / "journal.jsonl"

    def run(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[], Json],
        *,
        still_valid: Callable[[Json], bool] = lambda result: True,
    ) -> Json:
        """The result of stage ``name``: kept if finished with these ``inputs``, else of ``work()``.

        ``still_valid`` checks that the files a kept result speaks of are still there.
        """
        key = digest_of(inputs)
        path = self._folder / f"{name}.json"
        kept = _read(path)
        if kept is not None and kept["key"] == key and still_valid(kept["result"]):
            self._note(name, key, "kept")
            return dict(kept["result"])
        self._note(name, key, "started")
        result = work()
        write_text(path, json.dumps({"key": key, "result": result}, indent=1, allow_nan=False))
        self._note(name, key, "finished")
        return json.loads(json.dumps(result))  # type: ignore[no-any-return]

    def _note(self, stage: str, key: str, event: str) -> None:
        event_record = {"time": time.time(), "stage": stage, "key": key[:16], "event": event}
        append_line(self._journal, json.dumps(event_record))


def _read(path: Path) -> Json | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) and {"key", "result"} <= set(document) else None
