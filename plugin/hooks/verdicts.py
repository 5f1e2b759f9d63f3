"""The verdicts of all runs in a folder, read again only where they have changed."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.verdict import Verdict
from trimton.plugin.proof import read_verdict
from trimton.plugin.run_directory import verdict_file

VERDICT_BYTES_MAX = 64 << 20
LOG = logging.getLogger("trimton.hooks")

_Signature = tuple[int, int, int, int]


@dataclass(frozen=True)
class Found:
    """A verdict, when it was reached, and the name of its run."""

    run: str
    verdict: Verdict
    created: datetime.datetime


class VerdictBook:
    """The verdicts of the finished runs in the folder ``runs``.

    Safe to be asked from several threads: what is known of a file is replaced, never changed.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._known: dict[Path, tuple[_Signature, Found | None]] = {}

    def newest(self, model: str, digest: str) -> Found | None:
        """The last verdict on ``model`` that judged, or was measured against, ``digest``."""
        about = [
            found
            for found in self.all()
            if found.verdict.model == model and digest in _digests(found.verdict)
        ]
        return max(about, key=lambda found: found.created, default=None)

    def all(self) -> Iterator[Found]:
        """Every verdict that can be read; InfrastructureError where the folder cannot."""
        try:
            with os.scandir(self.runs) as entries:
                folders = [Path(e) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise InfrastructureError(
                f"{self.runs}: cannot be read ({error.strerror}); mount the folder of the runs."
            ) from error
        for folder in folders:
            if (found := self._read(folder)) is not None:
                yield found

    def _read(self, folder: Path) -> Found | None:
        path = verdict_file(folder)
        try:
            status = path.lstat()
        except OSError:  # not finished, or on its way out
            return None
        signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != signature:
            known = signature, _parse(folder.name, path, status)
            self._known[path] = known
        return known[1]


def _parse(run: str, path: Path, status: os.stat_result) -> Found | None:
    if path.is_symlink() or not path.is_file() or status.st_size > VERDICT_BYTES_MAX:
        LOG.warning("%s: is no verdict; it does not count", path)
        return None
    try:
        verdict = read_verdict(path)
        created = datetime.datetime.fromisoformat(verdict.created)
    except (InputError, ValueError) as error:
        LOG.warning("%s does not count: %s", path, error)
        return None
    if created.tzinfo is None:
        LOG.warning("%s: says no time with a zone; it does not count", path)
        return None
    return Found(run, verdict, created)


def _digests(verdict: Verdict) -> set[str]:
    return {verdict.baseline_digest, *(variant.digest for variant in verdict.variants)}
